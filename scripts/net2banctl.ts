#!/usr/bin/env node
// Runs Fail2Ban's actions on any number of nodes, through RabbitMQ. Follows the commands of
// https://github.com/sch3m4/net2ban; the other end is net2ban server and net2ban client.
//
//   net2banctl exec iptables-multiport actionban name=sshd ip=192.0.2.7
//
// Exit codes: net2banctl --help
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { textOption, unknownWord, usageFailure } from './lib/command.ts'
import { EXIT, Failure, ioFailure } from './lib/failure.ts'
import { quote } from './lib/lease.ts'
import { checkActionFile, Unmet } from './lib/net2ban/actions.ts'
import { execAll, execOne } from './lib/net2ban/calls.ts'
import { clientParty, net2banOf } from './lib/net2ban/party.ts'
import { withSender } from './lib/net2ban/sender.ts'
import { clientConfig, showStatus } from './lib/net2ban/show.ts'
import { nodesTarget } from './lib/net2ban/target.ts'
import type { Net2ban } from './lib/settings/net2ban.ts'
import type { Loaded } from './lib/settled.ts'
import type { Call } from './lib/target.ts'
import { loadSection, runSibling } from './lib/verbs.ts'

/** Of 100,000 calls on standard input the last must be out within this, seconds. */
const LONG = 600

/** `--client NAME`. @throws Failure 64 if there is no such client */
function only(net2ban: Net2ban, { values }: Pick<Call, 'values'>): string | undefined {
  const name = textOption(values, 'client')
  if (name !== undefined && !Object.hasOwn(net2ban.clients, name)) {
    throw unknownWord('client', name, Object.keys(net2ban.clients))
  }
  return name
}

async function exec(call: Call, loaded: Loaded, words: string[]): Promise<void> {
  const net2ban = net2banOf(loaded, 'server')
  const client = only(net2ban, call)
  if (words[0] === '-' && words.length === 1) return execAll(net2ban, call, client)
  if (words.length < 2) throw usageFailure('Missing ACTION')
  return execOne(net2ban, { ...call, signal: AbortSignal.timeout(20_000) }, words, client)
}

async function update(call: Call, loaded: Loaded, words: string[]): Promise<void> {
  const net2ban = net2banOf(loaded, 'server')
  const [client = '', path = ''] = words
  await clientParty(net2ban, client)
  const content = read(path)
  const file = basename(path, '.conf')
  await checkActionFile(file, content, dirname(path)).catch((error) => {
    if (!(error instanceof Unmet)) throw error // Without Fail2Ban here, the node alone looks.
  })
  if (call.dryRun) return call.show(`update ${client} ${file}`)
  await withSender(net2ban, call.owner, call.signal, (sender) =>
    sender.send({ cmd: 'update', file, content, client }),
  )
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new Failure(EXIT.input, ioFailure(`read ${quote(path)}`, error).message)
  }
}

void runSibling({
  name: 'net2banctl',
  command: 'net2banctl',
  about: `Runs Fail2Ban's actions on every node, through RabbitMQ: exec runs any action of
any action file, the other verbs use the file "default_action". It returns when
the broker has the message.

  net2banctl exec iptables-multiport actionban name=sshd ip=192.0.2.7 bantime=60
  net2banctl ban --ip 192.0.2.7 --name sshd --bantime 600`,
  load: loadSection('net2ban'),
  remembers: true,
  targets: (loaded, values) => {
    const net2ban = net2banOf(loaded, 'server')
    return [nodesTarget(net2ban, loaded.config.state_dir, only(net2ban, { values }))]
  },
  options: { client: { type: 'string' } },
  optionsHelp: '  --client NAME     only this client, instead of all (exec, ban, unban, sync)',
  verbs: {
    exec: {
      help: 'FILE ACTION name=value..., or - for a call a line',
      seconds: LONG,
      words: [1, 99],
      run: exec,
    },
    update: {
      help: 'NAME FILE: give a client an action file',
      seconds: 20,
      words: [2, 2],
      run: update,
    },
    list_clients: {
      help: 'print the names of the clients',
      seconds: 20,
      async run(call, loaded) {
        for (const name of Object.keys(net2banOf(loaded, 'server').clients)) call.show(name)
      },
    },
    get_client: {
      help: 'NAME: print the configuration for that client',
      seconds: 20,
      words: [1, 1],
      async run(call, loaded, [name = '']) {
        const text = await clientConfig(net2banOf(loaded, 'server'), call.owner, name)
        call.show(text.trimEnd())
      },
    },
    gen_random: {
      help: 'print a random key (needs no configuration)',
      seconds: 20,
      alone: true,
      async run(call, loaded) {
        const { keylen } = loaded.config.net2ban?.keygen ?? { keylen: 40 }
        call.show(
          randomBytes(Math.ceil(keylen / 2))
            .toString('hex')
            .slice(0, keylen),
        )
      },
    },
    status: {
      help: 'print how the clients stand',
      seconds: 20,
      run: (call, loaded) => showStatus(net2banOf(loaded, 'server'), call),
    },
  },
})
