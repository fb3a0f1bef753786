import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as v from 'valibot'
import { stringify } from 'yaml'
import type { Shared } from '../../scripts/lib/net2ban/party.ts'
import { clientParty, type Party, serverParty } from '../../scripts/lib/net2ban/party.ts'
import { clientPermission, serverPermission } from '../../scripts/lib/net2ban/topology.ts'
import { type Ended, run } from '../../scripts/lib/run.ts'
import { net2ban as schema } from '../../scripts/lib/settings/net2ban.ts'
import { type Broker, type BrokerUser, startBroker } from './rabbitmq.ts'
import { waitUntil } from './wait.ts'

/** What a test may set; the rest is as in the documentation. */
export interface Plan {
  clients: string[]
  tls?: boolean
  validWtime?: number
  /** Further keys of `net2ban.global`. */
  global?: Record<string, unknown>
}

/** A broker, a server and clients with real programs, on loopback and below one folder. */
export interface Net2banLab {
  folder: string
  broker: Broker
  /** The section as the programs read it. */
  section: v.InferOutput<typeof schema>
  /** Writes a configuration for net2banctl and a server. @param name of its state, too */
  config(name: string, global?: Record<string, unknown>, more?: object): string
  /** Writes what `get_client` prints, with this test's folders in it. */
  clientConfig(name: string, global?: Record<string, unknown>, config?: string): Promise<string>
  ctl(args: string[], input?: string, config?: string): Promise<Ended>
  /** The same, where nothing may go wrong. @returns what it printed */
  done(...args: string[]): Promise<string>
  /** A login, and what the party's key is made of. @param name `server` or a client's */
  login(name: string): { user: string; pass: string; shared: Shared }
  /** @param ahead seconds that its clock is ahead of everybody else's */
  daemon(word: 'server' | 'client', config: string, ahead?: number): Daemon
  /** The journal of a node: what its actions did, a line each. */
  journal(name: string): string[]
  /** Whom a node blocks, by what its actions did; sorted. */
  blocked(name: string): string[]
  /** Looks for passwords and keys in all that net2banctl printed, and in these logs. */
  assertNoSecret(...logs: string[]): void
  close(): Promise<void>
}

/** A daemon as a process that can be killed and started again. */
export interface Daemon {
  pid(): number
  log(): string
  start(): void
  kill(signal?: NodeJS.Signals): Promise<void>
  /** Waits for a line. */
  logged(text: string | RegExp, timeout?: number): Promise<void>
}

/** In the log of a daemon that nobody has killed. */
export const DIED = 'The daemon has ended by itself'

/** An action that notes what it does, so that a test can see what was run, and how often. */
export function journalAction(path: string): string {
  const verbs = ['start', 'stop', 'flush', 'ban', 'unban']
  const line = (verb: string) => `action${verb} = echo "${verb} <name> <ip>" >>${path}`
  return `[Definition]
${verbs
  .map(line)
  .join('\n')
  .replaceAll(/(start|stop|flush) <name> <ip>/g, '$1 <name>')}
actioncheck =
[Init]
name = default
port = ssh
protocol = tcp
chain = INPUT
timeout = 30
[Init?family=inet6]
chain = INPUT
`
}

const BASE = {
  secret: '57bae6f17927fee0309cd0fcf900903d0bf49277',
  authkey: 'fe64809ba0286c72123d15ffb3554f261ef835d0',
}

/** Starts the broker; the rest is started by the test. */
export async function openNet2ban(plan: Plan): Promise<Net2banLab> {
  const folder = mkdtempSync(join(tmpdir(), 'f2b-net2ban-'))
  const given = {
    global: {
      ...BASE,
      server: '127.0.0.1',
      mode: 'server',
      tls: plan.tls === true,
      valid_wtime: plan.validWtime ?? 3600,
      ...plan.global,
    },
    server: { key: '1e3648858a30a105374c1a8a7f05e4fc0dff2abc' },
    clients: Object.fromEntries(plan.clients.map((name, i) => [name, { key: keyOf(i) }])),
    default_action: 'journal',
  }
  const section = v.parse(schema, given)
  const parties = await partiesOf(section)
  const broker = await startBroker('net2ban', usersOf(section, parties), { tls: plan.tls === true })
  const port = plan.tls ? broker.tlsPort : broker.port
  Object.assign(given.global, { port, ...(plan.tls && { ca_file: broker.ca }) })
  section.global.port = port
  const daemons: Daemon[] = []
  let said = ''
  const write = (name: string, content: object) => {
    const path = join(folder, `${name}.yaml`)
    writeFileSync(path, stringify(content), { mode: 0o600 })
    return path
  }
  const lab: Net2banLab = {
    folder,
    broker,
    section,
    config(name, global = {}, more = {}) {
      const net2ban = { ...given, global: { ...given.global, ...global }, ...more }
      return write(name, { owner: 'web1', state_dir: join(folder, 'state', name), net2ban })
    },
    async clientConfig(name, global = {}, config = lab.config('ctl')) {
      const actions = join(folder, 'actions', name)
      mkdirSync(actions, { recursive: true })
      writeFileSync(join(actions, 'journal.conf'), journalAction(join(folder, `${name}.journal`)))
      const { stdout, stderr } = await lab.ctl(['get_client', name], undefined, config)
      if (stdout === '') throw new Error(stderr)
      const { parse } = await import('yaml')
      const printed = parse(stdout)
      Object.assign(printed.net2ban.global, { action_dir: actions, ...global })
      return write(name, { ...printed, state_dir: join(folder, 'state', name) })
    },
    async ctl(args, input, config = lab.config('ctl')) {
      const command = ['dist/net2banctl.cjs', '--config', config, ...args]
      const options = { env: ENV, ...(input !== undefined && { input }) }
      const ended = await run(process.execPath, command, options)
      // What get_client prints is made of secrets.
      said += args[0] === 'get_client' ? ended.stderr : ended.stdout + ended.stderr
      return ended
    },
    async done(...args) {
      const { code, stdout, stderr } = await lab.ctl(args)
      assert.deepEqual({ code, stderr }, { code: 0, stderr: '' })
      return stdout
    },
    login(name) {
      const party = parties.find((one) => one.name === name)
      const key = section.clients[name]?.key ?? section.server?.key ?? ''
      return {
        user: party?.user ?? '',
        pass: party?.pass ?? '',
        shared: { ...BASE, key, rounds: 12_000 },
      }
    },
    daemon(word, config, ahead = 0) {
      const daemon = startDaemon(word, config, ahead)
      daemons.push(daemon)
      return daemon
    },
    journal(name) {
      const path = join(folder, `${name}.journal`)
      return existsSync(path) ? readFileSync(path, 'utf8').split('\n').filter(Boolean) : []
    },
    blocked(name) {
      const state = new Set<string>()
      for (const line of lab.journal(name)) {
        const [verb, , ip = ''] = line.split(' ')
        if (verb === 'ban') state.add(ip)
        if (verb === 'unban') state.delete(ip)
      }
      return [...state].sort()
    },
    assertNoSecret(...logs) {
      const logins = ['server', ...plan.clients].map((name) => lab.login(name))
      const secrets = logins.flatMap(({ pass, shared: { key, secret, authkey } }) => {
        return [pass, key, secret, authkey]
      })
      for (const secret of secrets) {
        for (const text of [said, ...logs]) assert.ok(!text.includes(secret))
      }
    },
    async close() {
      await Promise.all(daemons.map((daemon) => daemon.kill('SIGKILL')))
      await broker.remove()
      rmSync(folder, { recursive: true, force: true })
    },
  }
  return lab
}

const { NODE_EXTRA_CA_CERTS: _, ...ENV } = process.env

/** What shifts a program's clock, as Debian's faketime does; the monotonic clock is nobody's to shift. */
function clock(ahead: number): Record<string, string> {
  if (ahead === 0) return {}
  return {
    LD_PRELOAD: '/usr/$LIB/faketime/libfaketime.so.1',
    FAKETIME: `${ahead > 0 ? '+' : ''}${ahead}s`,
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  }
}

function startDaemon(word: string, config: string, ahead: number): Daemon {
  let child: ChildProcess | undefined
  let text = ''
  const daemon: Daemon = {
    pid: () => child?.pid ?? 0,
    log: () => text,
    start() {
      const args = ['dist/net2ban.cjs', word, '--config', config]
      const env = { ...ENV, ...clock(ahead) }
      const started = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
      for (const stream of [started.stdout, started.stderr]) {
        stream.setEncoding('utf8').on('data', (more: string) => {
          text += more
        })
      }
      child = started
      started.on('exit', (code) => {
        if (child === started) text += `\n${DIED} with ${code}\n`
      })
    },
    async kill(signal = 'SIGKILL') {
      const old = child
      child = undefined
      if (!old || old.exitCode !== null || old.signalCode !== null) return
      const gone = once(old, 'exit')
      old.kill(signal)
      await gone
    },
    async logged(wanted, timeout = 60_000) {
      const seen = () => (typeof wanted === 'string' ? text.includes(wanted) : wanted.test(text))
      await waitUntil(`${wanted} in the log`, seen, { timeout, every: 50 }).catch((error) => {
        throw new Error(`${error.message}\n${text}`)
      })
    },
  }
  daemon.start()
  return daemon
}

async function partiesOf(section: Net2banLab['section']): Promise<Party[]> {
  const names = Object.keys(section.clients)
  const clients = await Promise.all(names.map((name) => clientParty(section, name)))
  return [await serverParty(section), ...clients]
}

function usersOf(section: Net2banLab['section'], parties: Party[]): BrokerUser[] {
  return parties.map(({ name, user, pass, queue }) => ({
    name: user,
    pass,
    ...(name === 'server' ? serverPermission(section, queue) : clientPermission(queue)),
  }))
}

function keyOf(i: number): string {
  return `${i}`.repeat(40).slice(0, 40)
}
