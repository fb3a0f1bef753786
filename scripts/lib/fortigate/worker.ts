import { type MessagePort, parentPort } from 'node:worker_threads'
import { messageOf } from '../failure.ts'
import { now } from '../lease.ts'
import type { Question } from './feed.ts'
import { type Rules, render, type Snapshot, search } from './render.ts'

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
      if ('render' in question) {
        const value = render(rules, now())
        port.postMessage({ id, value }, memoryOf(value))
        return
      }
      const value = search(rules, question.search, question.limit, now())
      port.postMessage({ id, value })
    } catch (error) {
      port.postMessage({ id, failure: messageOf(error) })
    }
  })
}

/** What is handed over rather than copied; small buffers share memory with others and are copied. */
function memoryOf({ parts }: Snapshot): ArrayBuffer[] {
  const whole = Object.values(parts).flatMap(({ bytes: { buffer, byteLength } }) =>
    buffer instanceof ArrayBuffer && buffer.byteLength === byteLength ? [buffer] : [],
  )
  return [...new Set(whole)]
}
