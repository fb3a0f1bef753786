import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { stringify } from 'yaml'
import { type Ended, run } from '../../scripts/lib/run.ts'

export const SECRET = 'Zx81-token-of-the-webhook'
export const PASS = 'fetch me if you can'

/** A folder with a configuration, in which the installed scripts run; nothing outside is touched. */
export interface Bench {
  folder: string
  list: string
  log: string
  config: string
  /** Where the feed listens, once it does. */
  url: string
  /** Runs `f2b-fortigate`. */
  cli(...args: string[]): Promise<Ended>
  cliWith(input: string, ...args: string[]): Promise<Ended>
  /** Starts `f2b-fortigate-feed` and waits until it serves. */
  startFeed(): Promise<Feed>
  close(): Promise<void>
}

export interface Feed {
  pid: number
  /** What it has logged so far. */
  lines: string[]
  stop(): Promise<number | null>
}

export interface Options {
  feed?: Record<string, unknown>
  webhook?: Record<string, unknown>
  push?: Record<string, unknown>
  top?: Record<string, unknown>
}

/** A place for one test file. Login, token and port are set; `options` overrides them. */
export function openBench(options: Options = {}): Bench {
  const folder = mkdtempSync(join(tmpdir(), 'f2b-fortigate-'))
  const list = join(folder, 'list.txt')
  const log = join(folder, 'failed_logins.log')
  const config = join(folder, 'config.yaml')
  const feed = { listen: '127.0.0.1:0', user: 'fortigate', pass: PASS, ...options.feed }
  const webhook = { secret: SECRET, log_file: log, ...options.webhook }
  const push = options.push ? { push: options.push } : {}
  const fortigate = { list_file: list, feed, webhook, ...push }
  writeFileSync(config, stringify({ owner: 'web1', ...options.top, fortigate }), { mode: 0o600 })
  const running: Feed[] = []
  const env = { ...process.env, FAIL2BAN_PERIMETER_CONFIG: config, STATE_DIRECTORY: folder }
  const script = resolve('dist/fortigate.cjs')
  const bench: Bench = {
    ...{ folder, list, log, config, url: '' },
    cli: (...args) => run(process.execPath, [script, ...args], { env }),
    cliWith: (input, ...args) => run(process.execPath, [script, ...args], { env, input }),
    async startFeed() {
      const child = spawn(process.execPath, [resolve('dist/fortigate-feed.cjs')], { env })
      const { started, url } = await served(child)
      bench.url = url
      running.push(started)
      return started
    },
    async close() {
      await Promise.all(running.map((feed) => feed.stop()))
      rmSync(folder, { recursive: true, force: true })
    },
  }
  return bench
}

/** A key and a certificate for 127.0.0.1, which openssl makes in a folder: where they are. */
export async function makeCertificate(folder: string): Promise<{ key: string; cert: string }> {
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
  const subject = ['-subj', '/CN=fw1', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '2']
  const files = ['-nodes', '-keyout', key, '-out', cert]
  const { code, stderr } = await run('openssl', [...made, ...subject, ...files])
  if (code !== 0) throw new Error(`openssl: ${stderr}`)
  return { key, cert }
}

async function served(child: ChildProcess): Promise<{ started: Feed; url: string }> {
  const lines: string[] = []
  child.stderr?.on('data', (text) => lines.push(String(text)))
  const gone = once(child, 'exit')
  const started: Feed = {
    pid: child.pid ?? 0,
    lines,
    async stop() {
      if (child.exitCode === null) child.kill('SIGTERM')
      await gone
      return child.exitCode
    },
  }
  const output = createInterface({ input: child.stdout ?? process.stdin })
  const url = await new Promise<string>((resolve, reject) => {
    output.on('line', (line) => {
      lines.push(line)
      const [found] = /https?:\/\/\S+$/.exec(line) ?? []
      if (found && line.startsWith('serving')) resolve(found)
    })
    gone.then(() => reject(new Error(`the feed ended: ${lines.join('; ')}`)))
  })
  return { started, url }
}

/** The header that logs in. */
export const LOGIN = {
  authorization: `Basic ${Buffer.from(`fortigate:${PASS}`).toString('base64')}`,
}
