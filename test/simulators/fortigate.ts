import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http'
import { createServer as createTls } from 'node:https'
import type { AddressInfo } from 'node:net'
import { BlockList, isIP } from 'node:net'
import { fortiosCli } from '../../scripts/lib/setup/fortigate-cli.ts'

/** How the webhook action sends a log; what is known of it is in facts/peers.md 2.3. */
export type Shape = 'raw' | 'form' | 'encoded' | 'fields' | 'log' | 'unescaped'

/** What goes wrong on purpose. */
export type Fault =
  | 'refused'
  | 'busy'
  | 'error'
  | 'garbage'
  | 'failed'
  | 'hang'
  | 'reset'
  | 'endless'

export interface Login {
  remip: string
  user?: string
  reason?: string
}

/** The orders and quotes of three generations of FortiOS, after public samples (peers.md 2.4). */
export const SSLVPN_FAILED = {
  v5: ({ remip, user = 'N/A', reason = 'sslvpn_login_unknown_user' }: Login) =>
    `date=2016-06-16 time=08:41:14 devname=fw1 devid=FGT60D0000000000 logid=0101039426 type=event subtype=vpn level=alert vd="root" logdesc="SSL VPN login fail" action="ssl-login-fail" tunneltype="ssl-web" tunnelid=0 remip=${remip} tunnelip=(null) user="${user}" group="N/A" dst_host="N/A" reason="${reason}" msg="SSL user failed to logged in"`,
  v6: ({ remip, user = 'N/A', reason = 'sslvpn_login_unknown_user' }: Login) =>
    `date=2019-05-16 time=10:21:33 logid="0101039426" type="event" subtype="vpn" level="alert" vd="root" eventtime=1558027293 logdesc="SSL VPN login fail" action="ssl-login-fail" tunneltype="ssl-web" tunnelid=0 remip=${remip} user="${user}" group="N/A" dst_host="N/A" reason="${reason}" msg="SSL user failed to logged in"`,
  v7: ({ remip, user = 'N/A', reason = 'sslvpn_login_permission_denied' }: Login) =>
    `date=2024-02-08 time=06:45:04 devname="fw1" devid="FGT60FTK00000000" eventtime=1707378304218437920 tz="+0100" logid="0101039426" type="event" subtype="vpn" level="alert" vd="root" logdesc="SSL VPN login fail" action="ssl-login-fail" tunneltype="ssl-web" tunnelid=0 remip=${remip} srccountry="Germany" user="${user}" group="N/A" dst_host="N/A" reason="${reason}" msg="SSL user failed to logged in"`,
}

export function tunnelUp({ remip, user = 'anna' }: Login): string {
  return `date=2024-02-08 time=06:50:00 devname="fw1" devid="FGT60FTK00000000" eventtime=1707378600218437920 tz="+0100" logid="0101039424" type="event" subtype="vpn" level="information" vd="root" logdesc="SSL VPN tunnel up" action="tunnel-up" tunneltype="ssl-web" tunnelid=1 remip=${remip} user="${user}" group="staff" dst_host="N/A" reason="login successfully" msg="SSL tunnel established"`
}

export function ipsecFailed({ remip }: Login, logid = '0101037124'): string {
  return `date=2024-12-20 time=14:56:10 devname="fw1" devid="FGT60FTK00000000" eventtime=1734724570250926112 tz="-0500" logid="${logid}" type="event" subtype="vpn" level="error" vd="root" logdesc="IPsec phase 1 error" msg="IPsec phase 1 error" action="negotiate" remip=${remip} locip=198.51.100.140 remport=500 locport=500 outintf="wan1" cookies="75da2b97aacbbfef/0000000000000000" user="N/A" group="N/A" useralt="N/A" xauthuser="N/A" xauthgroup="N/A" assignip=N/A vpntunnel="N/A" status="negotiate_error" reason="peer SA proposal not match local policy" peer_notif="NOT-APPLICABLE" fctuid="N/A" advpnsc=0`
}

/** A wrong password at an IPsec dial-up: 37121 with XAuth, 37128 with EAP. */
export function dialUpFailed({ remip, user = 'bob' }: Login, logid = '0101037128'): string {
  const how = logid.endsWith('21')
    ? ' mode="xauth" dir="inbound" stage=1 role="responder" result="ERROR"'
    : ' init="remote" exch="AUTH" dir="inbound" role="responder" result="ERROR" version="IKEv2"'
  return `date=2025-11-02 time=09:12:44 devname="fw1" devid="FGT60FTK00000000" eventtime=1762074764250926112 tz="+0100" logid="${logid}" type="event" subtype="vpn" level="error" vd="root" logdesc="Progress IPsec phase 1" msg="progress IPsec phase 1" action="negotiate" remip=${remip} locip=198.51.100.140 remport=4500 locport=4500 outintf="wan1" cookies="75da2b97aacbbfef/0000000000000000" user="N/A" group="N/A" useralt="N/A" xauthuser="${user}" xauthgroup="N/A" assignip=N/A vpntunnel="dialup" status="failure"${how}`
}

/** As FortiOS 5 tells it: without `srcip`. */
export function adminFailed5({ remip, user = 'admin' }: Login): string {
  return `date=2016-06-16 time=08:41:14 devname=fw1 devid=FGT60D0000000000 logid=0100032002 type=event subtype=system level=alert vd="root" logdesc="Admin login failed" sn=0 user="${user}" ui=ssh(${remip}) action=login status=failed reason="name_invalid" msg="Administrator ${user} login failed from ssh(${remip}) because of invalid user name"`
}

export function adminFailed({ remip, user = 'admin' }: Login): string {
  return `date=2023-03-27 time=14:36:58 devname="fw1" devid="FGT60FTK00000000" eventtime=1679899018000000000 tz="+0000" logid="0100032002" type="event" subtype="system" level="alert" vd="root" logdesc="Admin login failed" sn="0" user="${user}" ui="https(${remip})" method="https" srcip=${remip} dstip=192.0.2.254 action="login" status="failed" reason="passwd_invalid" msg="Administrator ${user} login failed from https(${remip}) because of invalid password"`
}

interface Settings {
  /** Where f2b-fortigate-feed is. */
  server: string
  user?: string
  pass?: string
  secret?: string
}

interface Resource {
  entries: Set<string>
}

/**
 * A FortiGate as far as it is documented: posts its logs, fetches its threat feed conditionally and
 * keeps what it has when that fails, and takes pushed entries over its REST API. Whatever a real one
 * would stumble over is noted in `complaints`.
 */
export class FortiGate {
  readonly complaints: string[] = []
  readonly token = 'q3Gb7sQjHk1n0fNw5xGd8h9p'
  fault: Fault | undefined
  /** Of the fetched feed: what KB 378964 shows, and the server's ETag (KB 421292). */
  feed = { valid: 0, errors: 0, status: 0, etag: '', entries: [] as string[] }
  /** Requests to the REST API, as `POST add 1`. */
  readonly calls: string[] = []
  readonly #settings: Settings
  readonly #resources = new Map<string, Resource>()
  #server: Server | undefined

  constructor(settings: Settings) {
    this.#settings = settings
  }

  /** Posts a log as the webhook action does. @returns the HTTP status */
  async post(log: string, shape: Shape = 'raw'): Promise<number> {
    const [body, type] = shaped(log, shape)
    const headers = { 'content-type': type, 'X-Webhook-Token': this.#settings.secret ?? '' }
    const url = `${this.#settings.server}/receive-logs`
    return (await fetch(url, { method: 'POST', body, headers })).status
  }

  /** Fetches the feed; any answer but 200 leaves the entries as they are. */
  async pull(route = '/blocked-ips'): Promise<number> {
    const { server, user, pass } = this.#settings
    const login = Buffer.from(`${user}:${pass}`).toString('base64')
    const headers = {
      'user-agent': 'curl/7.58.0',
      ...(user && { authorization: `Basic ${login}` }),
      ...(this.feed.etag && { 'if-none-match': this.feed.etag }),
    }
    const answer = await fetch(server + route, { headers })
    const text = await answer.text()
    this.feed.status = answer.status
    if (answer.status === 200) this.#load(text, answer.headers.get('etag') ?? '')
    else if (answer.status === 304 && text !== '') this.complaints.push('a 304 with a body')
    return answer.status
  }

  /** True if the deny policy that uses the feed, or the pushed connector, matches. */
  blocks(address: string): boolean {
    const list = new BlockList()
    const pushed = [...this.#resources.values()].flatMap((resource) => [...resource.entries])
    for (const entry of [...this.feed.entries, ...pushed]) {
      const [host = '', prefix] = entry.split('/')
      const family = isIP(host) === 6 ? 'ipv6' : 'ipv4'
      if (prefix) list.addSubnet(host, Number(prefix), family)
      else list.addAddress(host, family)
    }
    return list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
  }

  /** Configures a connector with `update-method push`. */
  addConnector(name: string): Set<string> {
    const entries = new Set<string>()
    this.#resources.set(name, { entries })
    return entries
  }

  /** Starts the REST API on loopback. @returns its URL */
  async listen(tls?: { cert: string; key: string }): Promise<string> {
    const handler: RequestListener = async (request, response) => {
      if (this.fault === 'endless') return endless(response)
      const answer = await this.#answer(request).catch(() => undefined)
      if (answer) {
        const body = typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body)
        response.writeHead(answer.status, { 'content-type': 'application/json' }).end(body)
      } else if (this.fault !== 'hang') {
        request.socket.destroy()
      }
    }
    const server = tls ? createTls(tls, handler) : createServer(handler)
    this.#server = server
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    return `${tls ? 'https' : 'http'}://127.0.0.1:${port}`
  }

  async close(): Promise<void> {
    this.#server?.closeAllConnections()
    await new Promise((resolve) =>
      this.#server ? this.#server.close(resolve) : resolve(undefined),
    )
  }

  #load(text: string, etag: string): void {
    if (!/^"[\x21\x23-\x7e]+"$/.test(etag)) this.complaints.push(`ETag ${etag}`)
    if (text !== '' && !text.endsWith('\n')) this.complaints.push('no newline at the end')
    if (text.includes('\r')) this.complaints.push('CR in the feed')
    const lines = text.split('\n').filter((line) => line !== '')
    const valid = lines.filter(isEntry)
    if (new Set(valid).size < valid.length) this.complaints.push('an entry twice')
    this.feed = {
      ...this.feed,
      valid: valid.length,
      errors: lines.length - valid.length,
      etag,
      entries: valid,
    }
  }

  async #answer(request: IncomingMessage): Promise<{ status: number; body: unknown } | undefined> {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://fortigate')
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const body = Buffer.concat(chunks).toString()
    const fault = this.#faulty()
    if (fault) return fault.status === 0 ? undefined : fault
    if (request.headers.authorization !== `Bearer ${this.token}`) return { status: 401, body: {} }
    const base = '/api/v2/monitor/system/external-resource'
    if (request.method === 'POST' && pathname === `${base}/dynamic`)
      return this.#dynamic(request, body)
    if (request.method === 'GET' && pathname === `${base}/entry-list`) {
      return this.#entryList(searchParams.get('mkey') ?? '')
    }
    this.complaints.push(`${request.method} ${pathname}`)
    return { status: 404, body: {} }
  }

  #faulty(): { status: number; body: unknown } | undefined {
    const faults: Record<Fault, { status: number; body: unknown }> = {
      refused: { status: 403, body: {} },
      busy: { status: 429, body: {} },
      error: { status: 500, body: {} },
      garbage: { status: 200, body: '<html>login</html>' },
      failed: { status: 200, body: { status: 'error', http_status: 200, error: -3 } },
      hang: { status: 0, body: '' },
      reset: { status: 0, body: '' },
      endless: { status: 0, body: '' },
    }
    return this.fault && faults[this.fault]
  }

  #dynamic(request: IncomingMessage, body: string): { status: number; body: unknown } {
    if (request.headers['content-type'] !== 'application/json') this.complaints.push('content type')
    const { commands } = JSON.parse(body) as { commands: Command[] }
    for (const { name, command, entries } of commands) {
      const resource = this.#resources.get(name)
      if (!resource) return { status: 404, body: { status: 'error', http_status: 404 } }
      const wrong = entries.find((entry) => !isEntry(entry))
      if (wrong !== undefined) this.complaints.push(`entry ${wrong}`)
      this.calls.push(`${command} ${entries.length}`)
      change(resource.entries, command, entries)
    }
    return { status: 200, body: success('POST', {}) }
  }

  #entryList(name: string): { status: number; body: unknown } {
    const resource = this.#resources.get(name)
    if (!resource) return { status: 404, body: { status: 'error', http_status: 404 } }
    const entries = [...resource.entries].map((entry) => ({ entry, valid: true }))
    const results = { entries, invalid_count: 0, resource_file_status: 'file-ok' }
    return { status: 200, body: success('GET', results) }
  }
}

interface Command {
  name: string
  command: 'add' | 'remove' | 'snapshot'
  entries: string[]
}

function change(set: Set<string>, command: Command['command'], entries: string[]): void {
  if (command === 'snapshot') set.clear()
  for (const entry of entries) {
    if (command === 'remove') set.delete(entry)
    else set.add(entry)
  }
}

function success(method: string, results: unknown) {
  return {
    http_method: method,
    results,
    vdom: 'root',
    status: 'success',
    serial: 'FGVM',
    build: 2571,
  }
}

/** An address, a subnet or a range, as the admin guide has it. */
function isEntry(line: string): boolean {
  const [first = '', last] = line.split('-')
  const [host = '', prefix, ...rest] = first.split('/')
  if (rest.length > 0 || isIP(host) === 0) return false
  if (last !== undefined) return isIP(last) === isIP(host)
  return prefix === undefined || /^\d{1,3}$/.test(prefix)
}

function shaped(log: string, shape: Shape): [body: string, type: string] {
  const form = 'application/x-www-form-urlencoded'
  const json = 'application/json'
  if (shape === 'form') return [log, form]
  if (shape === 'encoded') return [encodeURIComponent(log).replace('%3D', '='), form]
  if (shape === 'log') return [JSON.stringify({ log }), json]
  if (shape === 'unescaped') return [`{"log": "${log}"}`, json]
  if (shape === 'fields') return [fieldsOf(log), json]
  return [log, 'text/plain']
}

/** What `%%log.logid%%` and its like are replaced by: as it is, without an escape. */
function fieldsOf(log: string): string {
  const [, body = ''] = /set http-body "(.*)"$/m.exec(fortiosCli(SIDE)) ?? []
  return body.replaceAll('\\"', '"').replace(/%%log\.(\w+)%%/g, (_, key) => {
    // A name ends where the next field begins.
    const [, quoted, plain] =
      new RegExp(` ${key}=(?:"(.*?)"(?= \\w+=["\\w]|$)|([^" ]*))`).exec(log) ?? []
    return quoted ?? plain ?? ''
  })
}

const SIDE = { url: new URL('http://192.0.2.10:5000'), header: 'x', token: '', user: '', pass: '' }

/** Answers until nobody listens any more. */
function endless(response: ServerResponse): void {
  const more = (): void => {
    if (!response.destroyed) response.write(Buffer.alloc(65_536, ' '), more)
  }
  response.writeHead(200)
  more()
}
