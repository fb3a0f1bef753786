// Runs the test files side by side, the longest first: `tsx test/run.ts [FILE...]`.
//
// Each file gets processes, a network and a /run of its own, which end with it. So no port, path or
// process of one is in the way of another, or of what this machine runs, and nothing stays behind.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { enclosed } from './lib/enclosed.ts'

/** What takes longest begins first; all others in the order of their names. */
const LONGEST = [
  'e2e',
  'booted/trixie',
  'booted/bookworm',
  'booted/packages',
  'scripts/sophosxg-faults',
  'delivery',
  'scripts/sophosxg',
  'scripts/net2ban-setup',
  'scripts/delivery/fail2ban-bans',
  'hostile',
  'scripts/setup-delivery',
  'scripts/lib/net2ban-same',
  'scripts/net2ban-chaos',
  'scripts/lib/net2ban-node',
  'contract',
  'kernel',
  'two-commands',
  'scripts/sophosxg-fail2ban',
  'chaos',
  'scripts/threatjammer-budget',
  'scripts/status-address',
  'scripts/fortigate-push',
  'scripts/status-real',
]

/** Much of a test is waiting, so one more than there are processors; in milliseconds, what is stuck. */
const SIDE_BY_SIDE = availableParallelism() + 1
const LIMIT = 900_000

interface Result {
  file: string
  ok: boolean
  output: string
  seconds: number
}

function allFiles(): string[] {
  const found = readdirSync('test', { recursive: true, encoding: 'utf8' })
  const place = (file: string): number => {
    const at = LONGEST.indexOf(file.replace(/^test\/|\.test\.ts$/g, ''))
    return at === -1 ? LONGEST.length : at
  }
  return found
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => `test/${name}`)
    .sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1))
}

async function runFile(file: string): Promise<Result> {
  const begun = performance.now()
  const node = [process.execPath, '--import', 'tsx', '--test-reporter=spec', file]
  const [program, args, env] = enclosed(node)
  const options = { env, stdio: ['ignore', 'pipe', 'pipe'] as ['ignore', 'pipe', 'pipe'] }
  const child = spawn(program, args, { ...options, timeout: LIMIT, killSignal: 'SIGKILL' })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  }
  const [code] = (await once(child, 'close')) as [number | null]
  if (code === null) output += `\nKilled after ${LIMIT / 1000} s\n`
  return { file, ok: code === 0, output, seconds: (performance.now() - begun) / 1000 }
}

/** A number of the summary that node prints at the end. */
function count({ output }: Result, what: string): number {
  return Number(new RegExp(`^ℹ ${what} (\\d+)$`, 'm').exec(output)?.[1] ?? 0)
}

function report(result: Result): void {
  const { file, ok, output, seconds } = result
  const columns = [
    `${count(result, 'tests')} tests`.padStart(10),
    `${seconds.toFixed(1)} s`.padStart(9),
  ]
  process.stdout.write(`${ok ? '✔' : '✖'} ${file.padEnd(50)} ${columns.join('')}\n`)
  if (!ok) process.stdout.write(`${output.slice(output.indexOf('\n✖ failing tests:') + 1)}\n`)
}

async function main(): Promise<void> {
  const begun = performance.now()
  const waiting = process.argv.length > 2 ? process.argv.slice(2) : allFiles()
  const results: Result[] = []
  const work = async (): Promise<void> => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const result = await runFile(file)
      results.push(result)
      report(result)
    }
  }
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, work))
  const failed = results.filter(({ ok }) => !ok)
  const sum = (what: string): number =>
    results.reduce((all, result) => all + count(result, what), 0)
  const skipped = sum('skipped') > 0 ? `, ${sum('skipped')} skipped` : ''
  const seconds = Math.round((performance.now() - begun) / 1000)
  const time = `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  process.stdout.write(`${sum('pass')} of ${sum('tests')} tests passed${skipped}, in ${time}\n`)
  for (const { file } of failed) process.stdout.write(`✖ ${file}\n`)
  if (failed.length > 0) process.exitCode = 1
}

await main()
