import { build } from 'esbuild'
import { PROJECT } from './lab.ts'
import type { Machine } from './machine.ts'
import type { Background } from './process.ts'

/** What a node answered: a result, or the exit code and sentence of a Failure. */
export interface Answer {
  result?: unknown
  code?: number
  error?: string
  /** How long it took, in milliseconds. */
  ms: number
  log: string[]
}

/** A node in a process of its own on a machine of the lab. */
export interface TestNode {
  ask(...wish: unknown[]): Promise<Answer>
  /** Runs one action; a Failure is an error here. @returns `ran`, `held` or `over` */
  run(file: string, action: string, params: Record<string, string>): Promise<unknown>
  /** Kills it, and nothing that it has started. */
  kill(): Promise<void>
  close(): Promise<void>
}

export interface NodeFolders {
  actions?: string
  state?: string
}

const PROGRAM = '/root/net2ban-node.cjs'

let bundle: Promise<string> | undefined

/** The program of the nodes as one file, which starts ten times as fast as through tsx. */
export function nodeProgram(): Promise<string> {
  bundle ??= build({
    entryPoints: [`${PROJECT}/test/lib/net2ban-node.ts`],
    bundle: true,
    platform: 'node',
    write: false,
    // As the package is built: with the text of actions.py within.
    conditions: ['bundle', 'module'],
    loader: { '.py': 'text' },
  }).then(({ outputFiles }) => outputFiles[0]?.text ?? '')
  return bundle
}

/** Opens a node; returns once it has recovered what there is to recover. */
export async function startNode(machine: Machine, folders: NodeFolders = {}): Promise<TestNode> {
  const { actions = '/etc/fail2ban/action.d', state = '/var/lib/net2ban' } = folders
  const waiting: ((line: string) => void)[] = []
  await machine.writeFile(PROGRAM, await nodeProgram())
  const command = [process.execPath, PROGRAM, actions, state, '/run/net2ban']
  const child: Background = await machine.spawn(command, {
    onLine: (line) => waiting.shift()?.(line),
  })
  const next = (): Promise<string> => new Promise((resolve) => waiting.push(resolve))
  const gone = child.ended().then((code): never => {
    throw new Error(`The node ended with ${code}: ${child.stderr()}`)
  })
  gone.catch(() => {})
  await Promise.race([next(), gone])
  const ask = async (...wish: unknown[]): Promise<Answer> => {
    const answered = next()
    child.stdin.write(`${JSON.stringify(wish)}\n`)
    return JSON.parse(await Promise.race([answered, gone])) as Answer
  }
  return {
    ask,
    async run(file, action, params) {
      const { result, error, code } = await ask('run', file, action, params)
      if (error !== undefined) throw new Error(`${code}: ${error}`)
      return result
    },
    async kill() {
      machine.signal('node', 'SIGKILL')
      await child.ended()
    },
    async close() {
      child.stdin.end()
      await child.ended()
    },
  }
}

const STATE = `iptables-save; ip6tables-save; ipset save -sorted; nft list ruleset
ip route show type unreachable; ip route show type blackhole
ip -6 route show type unreachable; ip -6 route show type blackhole`

/** Everything that blocks on a machine, without counters, times and random seeds. */
export async function rulesOf(machine: Machine): Promise<string> {
  const text = await machine.sh(`{ ${STATE}; } 2>/dev/null`)
  return text
    .replace(/^#.*\n/gm, '')
    .replace(/\[\d+:\d+\]/g, '[0:0]')
    .replace(/counter packets \d+ bytes \d+/g, 'counter')
    .replace(/ initval 0x[0-9a-f]+/g, '')
}
