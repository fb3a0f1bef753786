import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** The shell text of action.d/perimeter-queue.conf, as Fail2Ban runs it. */
const APPEND = appendOf(readFileSync('action.d/perimeter-queue.conf', 'utf8'))

function appendOf(conf: string): string {
  const [, text = ''] = /^_append = ((?:.*\n)(?:[ \t]+.*\n)*)/m.exec(conf) ?? []
  if (!text.includes('printf')) throw new Error('No _append in action.d/perimeter-queue.conf')
  return text.replaceAll('%%', '%')
}

export interface Appended {
  code: number
  stderr: string
}

/** An action line that appends a line to a queue, as a command. */
export function appendCommand(queue: string, words: string[], before = ''): string[] {
  return ['sh', '-c', `queue="$0"\n${before}\n${APPEND}`, queue, ...words]
}

/** Runs an action line's shell that appends one line to a queue, in front of it `before`. */
export function startAppend(queue: string, words: string[], before = ''): ChildProcess {
  const [file = '', ...args] = appendCommand(queue, words, before)
  return spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

export function append(queue: string, words: string[], before = ''): Promise<Appended> {
  return new Promise((resolve) => {
    const child = startAppend(queue, words, before)
    let stderr = ''
    child.stderr?.on('data', (text) => {
      stderr += text
    })
    child.on('close', (code) => resolve({ code: code ?? -1, stderr }))
  })
}
