import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { EXIT, Failure } from '../failure.ts'
import { print } from '../print.ts'

/**
 * Asks the person at the terminal.
 *
 * @param option what to give where there is nobody to ask
 * @param hidden for a password: what is typed is not shown
 * @throws Failure 64 if there is no terminal
 */
export async function ask(question: string, option: string, hidden = false): Promise<string> {
  if (!process.stdin.isTTY) {
    throw new Failure(EXIT.usage, `Cannot ask, this is no terminal: give ${option}`)
  }
  print(question)
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({
    input: process.stdin,
    output: hidden ? silent : process.stdout,
    terminal: true,
  })
  const answer = await lines.question('').finally(() => lines.close())
  if (hidden) print('\n')
  return answer
}
