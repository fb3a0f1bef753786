// npm run demo: the whole story, played for real on this machine, in namespaces that go with it.
//
//   npm run demo
//   npm run demo -- --install --picture demo.svg
import { once } from 'node:events'
import { readdirSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { installPackages, missingPackages } from './lib/packages.ts'
import { toSvg } from './lib/picture.ts'
import { createStage, type Stage } from './lib/stage.ts'

/** What each file in test/demo/ exports as `demo<Name>`: it closes what it opened when it fails. */
type Demo = (stage: Stage, signal: AbortSignal) => Promise<void>

const DEMOS = readdirSync(new URL('demo/', import.meta.url))
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.slice(0, -3))
  .sort()

const USAGE = `Usage: npm run demo -- [${DEMOS.join('|')}] [options]

Plays a story with real programs and real packets, on machines made of namespaces; nothing outside
them is changed and nothing is left of them. Needs root on Debian. Without a name: firewall.

  --install        install the Debian packages that are missing
  --picture FILE   write what was shown as a picture (SVG), too
  --help           show this

Exit codes: 0 done; 1 a step failed; 64 wrong usage; 69 packages are missing; 77 not root;
130 interrupted
`

const OPTIONS = {
  install: { type: 'boolean' },
  picture: { type: 'string' },
  help: { type: 'boolean' },
} as const

const code = await main()
// Whatever an interrupted demonstration still waits for, nobody waits for it.
process.stdout.write('', () => process.exit(code))

async function main(): Promise<number> {
  const args = readArguments()
  if (typeof args === 'string') return complain(`${args}\n\n${USAGE}`, 64)
  if (args.help) return process.stdout.write(USAGE) ? 0 : 0
  if (process.getuid?.() !== 0) return complain('demo: Only root can build the machines\n', 77)
  const missing = missingPackages()
  if (missing.length > 0 && !args.install) {
    const line = `apt-get install -y --no-install-recommends ${missing.join(' ')}`
    return complain(`demo: Debian packages are missing (--install installs them):\n  ${line}\n`, 69)
  }
  await installPackages(missing)
  return play(await load(args.name), args.picture)
}

function readArguments() {
  try {
    const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true })
    const [name = 'firewall', ...rest] = positionals
    if (!DEMOS.includes(name)) return `demo: Unknown demonstration "${name}"`
    if (rest.length > 0) return `demo: One word too many "${rest[0]}"`
    return { ...values, name }
  } catch (error) {
    return `demo: ${(error as Error).message}`
  }
}

async function load(name: string): Promise<Demo> {
  const module = (await import(`./demo/${name}.ts`)) as Record<string, Demo | undefined>
  const demo = module[`demo${name[0]?.toUpperCase()}${name.slice(1)}`]
  if (!demo) throw new Error(`test/demo/${name}.ts does not export its demonstration`)
  return demo
}

async function play(demo: Demo, picture: string | undefined): Promise<number> {
  const stage = createStage()
  const interrupt = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => interrupt.abort(new Error(`Interrupted by ${signal}`)))
  }
  try {
    await Promise.race([demo(stage, interrupt.signal), patience(interrupt.signal)])
  } catch (error) {
    stage.failure(interrupt.signal.aborted ? interrupt.signal.reason : error)
    return interrupt.signal.aborted ? 130 : 1
  }
  if (picture) writeFileSync(picture, toSvg(stage.text()))
  return 0
}

/** How long an interrupted demonstration may clean up; what it leaves then, ends with this process. */
async function patience(signal: AbortSignal): Promise<never> {
  await once(signal, 'abort')
  await sleep(15_000)
  throw signal.reason
}

function complain(text: string, code: number): number {
  process.stderr.write(text)
  return code
}
