import { parseBanned } from './address.ts'
import { type Command, main, type Options, textOption, usageFailure } from './command.ts'
import { noteByHand } from './delivery/by-hand.ts'
import { readExpiry } from './expires.ts'
import { EXIT, Failure } from './failure.ts'
import { firewallTargets } from './firewall/target.ts'
import { alive, checkJail, now, quote } from './lease.ts'
import { readNaming } from './ports.ts'
import { type Loaded, loadFirewalls } from './settled.ts'
import { changeOne } from './target.ts'
import { checkBan, makeCall, onEach } from './verbs.ts'

// The document's two client scripts, whose arguments stand in its order instead of behind options.

const OPTIONS: Options = {
  config: { type: 'string' },
  configfile: { type: 'string' },
  bantime: { type: 'string' },
  time: { type: 'string' },
  'dry-run': { type: 'boolean' },
}

/** Whole seconds for everything; Fail2Ban kills an action after 60 and runs it twice. */
const DEADLINE = 20

/** Runs `banip`. */
export async function runBanip(help: string): Promise<void> {
  await runWords('banip', help, 4, async ([chain, ip, ports, protocol], values) => {
    const address = parseBanned(ip)
    const jail = jailOf(chain)
    readNaming(ports, protocol)
    const expires = readExpiry(values)
    const loaded = await load(values)
    checkBan(address, loaded.config)
    if (!alive(expires, now())) return
    const call = makeCall(loaded, { ...values, port: ports, protocol }, DEADLINE)
    const lease = { address, jail, expires, owner: call.owner }
    noteByHand('firewall', call.config.state_dir, call, { verb: 'hold', lease })
    await onEach(firewallTargets(loaded), `ban "${address.text}"`, (target) =>
      changeOne(target, call, { verb: 'ban', lease }),
    )
  })
}

/** Runs `unbanip`. */
export async function runUnbanip(help: string): Promise<void> {
  await runWords('unbanip', help, 2, async ([chain, ip], values) => {
    const address = parseBanned(ip)
    const jail = jailOf(chain)
    const loaded = await load(values)
    const call = makeCall(loaded, values, DEADLINE)
    noteByHand('firewall', call.config.state_dir, call, { verb: 'release', address, jail })
    await onEach(firewallTargets(loaded), `unban "${address.text}"`, (target) =>
      changeOne(target, call, { verb: 'unban', address, jail }),
    )
  })
}

type Words = [string, string, string, string]
type Values = Parameters<Command['run']>[1]

async function runWords(
  name: string,
  help: string,
  count: number,
  work: (words: Words, values: Values) => Promise<void>,
): Promise<void> {
  await main({
    name,
    help,
    options: OPTIONS,
    async run(words, values) {
      if (words.length !== count)
        throw usageFailure(`${count} arguments expected, not ${words.length}`)
      const [a = '', b = '', c = '', d = ''] = words
      await work([a, b, c, d], values)
    },
  })
}

async function load(values: Values): Promise<Loaded> {
  const given = textOption(values, 'config') ?? textOption(values, 'configfile')
  return await loadFirewalls(given)
}

function jailOf(chain: string): string {
  if (!chain.startsWith('fail2ban-')) {
    throw new Failure(EXIT.input, `Cannot use chain ${quote(chain)}: it must be fail2ban-<jail>`)
  }
  return checkJail(chain.slice('fail2ban-'.length))
}
