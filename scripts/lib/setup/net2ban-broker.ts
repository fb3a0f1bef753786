import { EXIT, Failure } from '../failure.ts'
import { clientParty, type Party, serverParty } from '../net2ban/party.ts'
import { clientPermission, type Permission, serverPermission } from '../net2ban/topology.ts'
import { run } from '../run.ts'
import type { Net2ban } from '../settings/net2ban.ts'
import type { Item, State } from './changes.ts'

/** The vhost, and a user with its rights for the server and for each client. */
export async function brokerItems(net2ban: Net2ban): Promise<Item[]> {
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

function vhostItem(vhost: string, known: () => Promise<Known>): Item {
  return {
    name: `broker vhost ${vhost}`,
    look: async () => ((await known()).vhosts.has(vhost) ? 'same' : 'absent'),
    make: async () => void (await ctl(['add_vhost', vhost])),
    remove: () => ctl(['delete_vhost', vhost]),
    // With it go all messages that wait.
    kept: true,
  }
}

function user(
  vhost: string,
  { user, pass }: Party,
  { configure, write, read }: Permission,
  known: () => Promise<Known>,
): Item {
  return {
    name: `broker user ${user}`,
    async look(): Promise<State> {
      const { users, rights } = await known()
      if (!users.has(user)) return 'absent'
      if (!rights.has([user, configure, write, read].join(' '))) return 'different'
      const { code } = await run('rabbitmqctl', ['authenticate_user', user], { input: `${pass}\n` })
      return code === 0 ? 'same' : 'different'
    },
    async make() {
      const { users } = await known()
      // The password travels on standard input: arguments can be read by everybody.
      await ctl([users.has(user) ? 'change_password' : 'add_user', user], pass)
      await ctl(['set_permissions', '-p', vhost, user, configure, write, read])
    },
    remove: () => ctl(['delete_user', user]),
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
  const ended = await run('rabbitmqctl', args, input === undefined ? {} : { input: `${input}\n` })
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
