import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { run } from '../../scripts/lib/run.ts'
import { waitUntil } from './wait.ts'

/** Debian's program, without the wrapper that wants to be the user rabbitmq. */
const PROGRAM = '/usr/lib/rabbitmq/bin/rabbitmq-server'

export interface BrokerUser {
  name: string
  pass: string
  configure: string
  write: string
  read: string
}

/** A real RabbitMQ of our own on loopback, beside whatever the machine runs. */
export interface Broker {
  port: number
  /** With `tls`, where it speaks TLS, and what signed its certificate. */
  tlsPort: number
  ca: string
  folder: string
  /** Pulls the plug: every process of it is gone, what was written stays. */
  kill(): Promise<void>
  /** Starts it again after `kill`. */
  start(): Promise<void>
  /** Stops its processes (SIGSTOP) until `thaw`: connected, and deaf. */
  freeze(): Promise<void>
  thaw(): Promise<void>
  /** Has it say that it is low on memory or disk, or no more. */
  alarm(on: boolean, what?: 'memory' | 'disk'): Promise<void>
  /** Runs rabbitmqctl. @returns what it printed */
  ctl(...args: string[]): Promise<string>
  log(): string
  remove(): Promise<void>
}

/** @param users may do what they may do on the one vhost */
export async function startBroker(vhost: string, users: BrokerUser[], { tls = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'f2b-rabbit-'))
  const [port = 0, tlsPort = 0, dist = 0, epmd = 0] = await freePorts(4)
  if (tls) await certificates(folder)
  configure(folder, { port, tlsPort: tls ? tlsPort : 0, vhost, users })
  let child: ChildProcess | undefined
  const broker: Broker = {
    port,
    tlsPort,
    ca: join(folder, 'ca.pem'),
    folder,
    async start() {
      child = launch(folder, dist, epmd)
      await waitUntil('RabbitMQ', () => reachable(port), { timeout: 120_000, every: 100 })
    },
    async kill() {
      const gone = child && once(child, 'exit')
      child?.kill('SIGKILL')
      await gone
      child = undefined
      await waitUntil('the port', async () => !(await reachable(port)))
    },
    freeze: () => signal(child, 'STOP'),
    thaw: () => signal(child, 'CONT'),
    async alarm(on, what = 'memory') {
      if (what === 'disk') await broker.ctl('set_disk_free_limit', on ? '1000000GB' : '50MB')
      else await broker.ctl('set_vm_memory_high_watermark', on ? '0.0000001' : '0.6')
    },
    async ctl(...args) {
      const env = { ...environment(folder, dist, epmd), ERL_FLAGS: '-start_epmd false' }
      const { code, stdout, stderr } = await run('/usr/lib/rabbitmq/bin/rabbitmqctl', args, { env })
      if (code !== 0) throw new Error(`rabbitmqctl: ${stderr}`)
      return stdout
    },
    log: () => readFileSync(join(folder, 'out.log'), 'utf8'),
    async remove() {
      if (child) await broker.kill()
      rmSync(folder, { recursive: true, force: true })
    },
  }
  await broker.start()
  return broker
}

/** Every process of it lives in a PID namespace that ends with its first one, and with us. */
function launch(folder: string, dist: number, epmd: number): ChildProcess {
  const env = environment(folder, dist, epmd)
  const script = 'exec "$0" >>"$1" 2>&1'
  const unshare = ['--pid', '--fork', '--kill-child', '--mount-proc']
  const args = [...unshare, 'sh', '-c', script, PROGRAM, join(folder, 'out.log')]
  // The pipe is for prlimit-free life and death: a parent that dies takes it along (PDEATHSIG).
  return spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', ...args], { env, stdio: 'ignore' })
}

function environment(folder: string, dist: number, epmd: number): Record<string, string> {
  return {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: folder,
    LANG: 'C.UTF-8',
    RABBITMQ_NODENAME: 'lab@localhost',
    RABBITMQ_MNESIA_BASE: join(folder, 'mnesia'),
    RABBITMQ_LOG_BASE: join(folder, 'log'),
    RABBITMQ_CONFIG_FILE: join(folder, 'rabbitmq.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'plugins'),
    RABBITMQ_CONF_ENV_FILE: '/dev/null',
    RABBITMQ_PID_FILE: join(folder, 'pid'),
    RABBITMQ_DIST_PORT: String(dist),
    ERL_EPMD_PORT: String(epmd),
    ERL_EPMD_ADDRESS: '127.0.0.1',
  }
}

interface Settings {
  port: number
  tlsPort: number
  vhost: string
  users: BrokerUser[]
}

function configure(folder: string, { port, tlsPort, vhost, users }: Settings): void {
  const at = (name: string) => join(folder, name)
  const tls = `listeners.ssl.1 = 127.0.0.1:${tlsPort}
ssl_options.cacertfile = ${at('ca.pem')}
ssl_options.certfile = ${at('cert.pem')}
ssl_options.keyfile = ${at('key.pem')}
`
  mkdirSync(at('mnesia'))
  writeFileSync(at('plugins'), '[].\n')
  writeFileSync(
    at('rabbitmq.conf'),
    `listeners.tcp.1 = 127.0.0.1:${port}
load_definitions = ${at('definitions.json')}
log.console = true
log.console.level = warning
log.file = false
raft.wal_max_size_bytes = 16777216
${tlsPort ? tls : ''}`,
  )
  const definitions = {
    users: users.map(({ name, pass }) => ({ name, password_hash: hashOf(pass), tags: [] })),
    vhosts: [{ name: vhost }],
    permissions: users.map(({ name, configure, write, read }) => {
      return { user: name, vhost, configure, write, read }
    }),
  }
  writeFileSync(at('definitions.json'), JSON.stringify(definitions))
}

/** As RabbitMQ stores it: salt, then SHA-256 of salt and password. */
function hashOf(pass: string): string {
  const salt = randomBytes(4)
  const hash = createHash('sha256').update(salt).update(pass).digest()
  return Buffer.concat([salt, hash]).toString('base64')
}

/** An authority, and a certificate for 127.0.0.1 and localhost that it signed. */
async function certificates(folder: string): Promise<void> {
  const at = (name: string) => join(folder, name)
  const script = `set -e
cd ${folder}
new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
openssl req -x509 $new -keyout ca.key -out ca.pem -days 2 -subj /CN=authority
openssl req $new -keyout key.pem -out request.pem -subj /CN=localhost
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' >names
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \\
  -extfile names -out cert.pem`
  const { code, stderr } = await run('sh', ['-c', script])
  if (code !== 0) throw new Error(`openssl: ${stderr} ${at('')}`)
}

async function signal(child: ChildProcess | undefined, name: 'STOP' | 'CONT'): Promise<void> {
  const { stdout } = await run('pgrep', ['-P', String(child?.pid)])
  const inside = ['nsenter', '-t', stdout.trim(), '-p', '-m', 'pkill', `-${name}`, 'beam']
  await run(inside[0] ?? '', inside.slice(1))
}

/** A wire that can be cut: daemons are told its port instead of the broker's. */
export interface Wire {
  port: number
  /** Ends all connections and lets nobody in, until `mend`. */
  cut(): void
  mend(): void
  close(): void
}

/** @param to the port on loopback that it leads to */
export async function layWire(to: number): Promise<Wire> {
  const sockets = new Set<Socket>()
  let whole = true
  const server: Server = createServer((near) => {
    if (!whole) {
      near.destroy()
      return
    }
    const far = connect(to, '127.0.0.1')
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one)
      one.setNoDelay(true)
      one.on('error', () => {})
      one.on('close', () => {
        sockets.delete(one)
        other.destroy()
      })
      one.pipe(other)
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const end = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    port: (server.address() as { port: number }).port,
    cut() {
      whole = false
      end()
    },
    mend() {
      whole = true
    },
    close() {
      end()
      server.close()
    },
  }
}

export function reachable(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false))
    socket.on('connect', () => socket.destroy())
  })
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const ports = servers.map((server) => (server.address() as { port: number }).port)
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))))
  return ports
}
