import { type MessagePort, parentPort } from 'node:worker_threads'
import { messageOf } from '../failure.ts'
import { now } from '../lease.ts'
import type { Question } from './feed.ts'
import { type Rules, render, search } from './render.ts'

interface Message {
  id: number
  question: Question
  rules: Rules
}

/** The other side of `Feed`: answers its questions in a thread of its own. */
export function runWorker(): void {
  const port = parentPort as MessagePort
  port.on('message', ({ id, question, rules }: Message) => {
    try {
      const value =
        'render' in question
          ? render(rules, now())
          : search(rules.path, question.search, question.limit, now())
      port.postMessage({ id, value })
    } catch (error) {
      port.postMessage({ id, failure: messageOf(error) })
    }
  })
}
