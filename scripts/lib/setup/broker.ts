import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EXIT, Failure } from '../failure.ts'
import { clientParty, type Party, serverParty } from '../net2ban/party.ts'
import { clientPermission, type Permission, serverPermission } from '../net2ban/topology.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import { $, command } from './commands.ts'
import type { InstallTarget, Resource, State } from './plan.ts'
import { file, fileOnce, folder, textOf, writeAs } from './things.ts'

// RabbitMQ as net2ban needs it: a vhost with users, and TLS.

/** The vhost, and a user with its rights for the server and for each client. */
export async function brokerParts(net2ban: Net2ban): Promise<Resource[]> {
  const { vhost } = net2ban.global
  const server = await serverParty(net2ban)
  const names = Object.keys(net2ban.clients)
  const clients = await Promise.all(names.map((name) => clientParty(net2ban, name)))
  const known = ask(vhost)
  const users = [
    user(vhost, server, serverPermission(net2ban, server.queue), known),
    ...clients.map((client) => user(vhost, client, clientPermission(client.queue), known)),
  ]
  return [vhostItem(vhost, known), ...users]
}

/** What the broker has. Each question starts an Erlang of its own: a second or two. */
interface Known {
  vhosts: Set<string>
  users: Set<string>
  /** Rights of users on our vhost, as the words of a line. */
  rights: Set<string>
}

function ask(vhost: string): () => Promise<Known> {
  const first = (rows: string[][]) => new Set(rows.map(([name = '']) => name))
  const look = async (): Promise<Known> => {
    const vhosts = first(await table(['list_vhosts', 'name']))
    const users = first(await table(['list_users']))
    const rows = vhosts.has(vhost) ? await table(['list_permissions', '-p', vhost]) : []
    return { vhosts, users, rights: new Set(rows.map((row) => row.join(' '))) }
  }
  let answer: Promise<Known> | undefined
  return () => {
    answer ??= look()
    return answer
  }
}

function vhostItem(vhost: string, known: () => Promise<Known>): Resource {
  return {
    name: `broker vhost ${vhost}`,
    state: async () => ((await known()).vhosts.has(vhost) ? 'same' : 'absent'),
    apply: () => ctl(['add_vhost', vhost]),
    undo: () => ctl(['delete_vhost', vhost]),
    // With it go all messages that wait.
    kept: true,
  }
}

function user(
  vhost: string,
  { user, pass }: Party,
  { configure, write, read }: Permission,
  known: () => Promise<Known>,
): Resource {
  return {
    name: `broker user ${user}`,
    async state(): Promise<State> {
      const { users, rights } = await known()
      if (!users.has(user)) return 'absent'
      if (!rights.has([user, configure, write, read].join(' '))) return 'different'
      const { code } = await command({ input: `${pass}\n` })`rabbitmqctl authenticate_user ${user}`
      return code === 0 ? 'same' : 'different'
    },
    async apply() {
      const { users } = await known()
      // The password travels on standard input: any user can read arguments.
      await ctl([users.has(user) ? 'change_password' : 'add_user', user], pass)
      await ctl(['set_permissions', '-p', vhost, user, configure, write, read])
    },
    undo: () => ctl(['delete_user', user]),
  }
}

async function table(args: string[]): Promise<string[][]> {
  const stdout = await ctl(['-q', '--no-table-headers', ...args])
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split('\t'))
}

/** @throws Failure 69 if RabbitMQ cannot be asked, 75 if it says no */
async function ctl(args: string[], input?: string): Promise<string> {
  const given = input === undefined ? {} : { input: `${input}\n` }
  const ended = await command(given)`rabbitmqctl ${args}`
  if (ended.code === 0) return ended.stdout
  if (ended.code === 127) {
    throw new Failure(EXIT.unreachable, 'Cannot find rabbitmqctl: install rabbitmq-server here')
  }
  const said = `${ended.stdout} ${ended.stderr}`.replace(/\s+/g, ' ').trim().slice(0, 300)
  const code = /unable to perform|nodedown|not running/i.test(said)
    ? EXIT.unreachable
    : EXIT.temporary
  throw new Failure(code, `rabbitmqctl ${args[0]}: ${said}`)
}

const FOLDER = '/etc/rabbitmq/net2ban'
const CONF = '/etc/rabbitmq/conf.d/50-net2ban.conf'
/** Ten years: no operator renews it in time, and it can be made again at any time. */
const DAYS = '3650'

/** The authority that clients are told to trust. */
export const CA = `${FOLDER}/ca.pem`

/**
 * An authority of our own, a certificate for the broker, and the listener that uses them.
 *
 * @param host the name or address that clients connect to
 * @param port where RabbitMQ listens with TLS
 */
export function tlsParts(target: InstallTarget, host: string, port: number): Resource[] {
  const at = (name: string) => target.at(`${FOLDER}/${name}`)
  return [
    folder(target.at(FOLDER)),
    fileOnce(at('ca.pem'), () => makeAll(target, host)),
    fileOnce(at('cert.pem'), () => makeAll(target, host)),
    fileOnce(at('key.pem'), () => makeAll(target, host)),
    file(target.at(CONF), listener(port)),
  ]
}

function listener(port: number): string {
  return `# Installed by fail2ban-perimeter (f2b-setup net2ban)
listeners.ssl.default = ${port}
ssl_options.cacertfile = ${FOLDER}/ca.pem
ssl_options.certfile = ${FOLDER}/cert.pem
ssl_options.keyfile = ${FOLDER}/key.pem
ssl_options.verify = verify_none
ssl_options.versions.1 = tlsv1.3
ssl_options.versions.2 = tlsv1.2
`
}

/** The authority's key is thrown away: it signs once, so no other can be signed. */
async function makeAll(target: InstallTarget, host: string): Promise<void> {
  const [ca, cert, key] = ['ca.pem', 'cert.pem', 'key.pem'].map((n) => target.at(`${FOLDER}/${n}`))
  if (textOf(ca ?? '') && textOf(cert ?? '') && textOf(key ?? '')) return
  const work = mkdtempSync(join(tmpdir(), 'f2b-setup-'))
  const at = (name: string) => join(work, name)
  const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const sign = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', DAYS]
  try {
    const names = `subjectAltName=${isIP(host) ? 'IP' : 'DNS'}:${host},DNS:localhost,IP:127.0.0.1\n`
    writeFileSync(at('names'), names)
    const subject = ['-subj', '/CN=net2ban authority', '-days', DAYS]
    await $`openssl req -x509 ${fresh} -keyout ${at('ca.key')} -out ${at('ca.pem')} ${subject}`
    await $`openssl req ${fresh} -keyout ${at('key.pem')} -out ${at('request')} -subj ${`/CN=${host}`}`
    const signed = ['-extfile', at('names'), '-out', at('cert.pem')]
    await $`openssl x509 -req -in ${at('request')} ${sign} ${signed}`
    writeAs(ca ?? '', readFileSync(at('ca.pem'), 'utf8'), 0o644)
    writeAs(cert ?? '', readFileSync(at('cert.pem'), 'utf8'), 0o644)
    writeAs(key ?? '', readFileSync(at('key.pem'), 'utf8'), 0o600)
    if (!target.prefix) await $`chown rabbitmq:rabbitmq ${key ?? ''}`
  } finally {
    rmSync(work, { recursive: true })
  }
}
