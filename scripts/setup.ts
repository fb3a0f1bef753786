#!/usr/bin/env node
// Installs either side. Every step compares first, says what it changes and can be undone; nothing
// is changed before all options have been checked.
//
//   f2b-setup firewall --owner web1 --key-file web1.pub
//
// Exit codes: f2b-setup --help
import { realpathSync } from 'node:fs'
import { dirname } from 'node:path'
import { main, type Options, unknownWord, usageFailure, type Values } from './lib/command.ts'
import { EXIT, Failure } from './lib/failure.ts'
import { quote } from './lib/lease.ts'
import { lock } from './lib/lock.ts'
import { setUpAppliance } from './lib/setup/appliance.ts'
import { setUpFirewall } from './lib/setup/firewall.ts'
import { FORTIGATE_HELP, FORTIGATE_OPTIONS, setUpFortigate } from './lib/setup/fortigate.ts'
import { MIKROTIK, MIKROTIK_HELP, MIKROTIK_OPTIONS } from './lib/setup/mikrotik.ts'
import { NET2BAN_HELP, NET2BAN_OPTIONS, setUpNet2ban } from './lib/setup/net2ban.ts'
import { OPNSENSE, OPNSENSE_HELP, OPNSENSE_OPTIONS } from './lib/setup/opnsense.ts'
import { type InstallTarget, installTarget } from './lib/setup/plan.ts'
import { setUpServer } from './lib/setup/server.ts'
import { SOPHOSXG, SOPHOSXG_HELP, SOPHOSXG_OPTIONS } from './lib/setup/sophosxg.ts'

interface Side {
  /** The options that only this one has. */
  options: Options
  /** The words that it takes, one of which must follow; none if left out. */
  words?: readonly string[]
  run(target: InstallTarget, values: Values, word: string): Promise<void>
}

const SIDES: Record<string, Side> = {
  firewall: {
    options: {
      owner: { type: 'string' },
      'key-file': { type: 'string' },
      from: { type: 'string', multiple: true },
      backend: { type: 'string' },
      protect: { type: 'string', multiple: true },
      systemd: { type: 'string' },
      'remove-owner': { type: 'boolean' },
    },
    run: setUpFirewall,
  },
  server: {
    options: {
      owner: { type: 'string' },
      firewall: { type: 'string', multiple: true },
      delivery: { type: 'string' },
      'host-key-file': { type: 'string' },
      systemd: { type: 'string' },
    },
    run: setUpServer,
  },
  sophosxg: {
    options: SOPHOSXG_OPTIONS,
    run: (target, values) => setUpAppliance(SOPHOSXG, target, values),
  },
  mikrotik: {
    options: MIKROTIK_OPTIONS,
    run: (target, values) => setUpAppliance(MIKROTIK, target, values),
  },
  opnsense: {
    options: OPNSENSE_OPTIONS,
    run: (target, values) => setUpAppliance(OPNSENSE, target, values),
  },
  fortigate: { options: FORTIGATE_OPTIONS, run: setUpFortigate },
  net2ban: {
    options: NET2BAN_OPTIONS,
    words: ['server', 'client'],
    run: (target, values, word) => setUpNet2ban(target, values, word as 'server' | 'client'),
  },
}

const COMMON: Options = {
  'dry-run': { type: 'boolean' },
  prefix: { type: 'string' },
  uninstall: { type: 'boolean' },
  purge: { type: 'boolean' },
}

const CHOICES: Record<string, string[]> = {
  backend: ['auto', 'nftables', 'ipset', 'iptables'],
  delivery: ['queued', 'direct'],
  systemd: ['auto', 'yes', 'no'],
}

void main({
  name: 'setup',
  help: ofSide(`Usage: f2b-setup server   --owner NAME --firewall HOST [options]
       f2b-setup firewall --owner NAME --key-file FILE [options]
       f2b-setup sophosxg --address HOST[:PORT] --user NAME [options]
       f2b-setup mikrotik --address HOST[:PORT] [options]
       f2b-setup opnsense --address HOST[:PORT] --key-file FILE [options]
       f2b-setup fortigate --url URL [options]
       f2b-setup net2ban server|client [options]

Installs fail2ban-perimeter: first the server side, beside Fail2Ban, which makes
a key and prints the line to run on the firewall; then the firewall side, once
for each server. To be run as root.

  web1#  f2b-setup server --owner web1 --firewall edge1
  edge1# f2b-setup firewall --owner web1 --key-file web1.pub
  web1#  f2b-firewall check

Both can be run again at any time: they change what is not as it should be,
print a line for each change, and never overwrite config.yaml, firewall.yaml,
keys or bans. Run them again after an upgrade of this package or of Node.

f2b-setup net2ban --help, or f2b-setup help net2ban, shows that side only.

f2b-setup server
  --owner NAME         this server's name; the firewall files its bans under it
  --firewall HOST      [user@]host[:port], an ssh_config Host, or local (this
                       machine is the firewall); may be repeated. User: fail2ban
  --host-key-file FILE the firewall's host key: a known_hosts file, or the line
                       of its /etc/ssh/ssh_host_ed25519_key.pub. Without it the
                       key is fetched with ssh-keyscan and you are asked whether
                       it is the right one
  --delivery HOW       queued: Fail2Ban's action writes one line to a file, and
                       f2b-deliver takes it to the firewall; direct: the action
                       waits for the firewall. Without it: what there is; at the
                       first time queued with systemd, else direct
  --systemd WHEN       auto | yes | no; without systemd cron starts f2b-deliver
                       and f2b-sync

f2b-setup firewall
  --owner NAME         the server that is let in. Without --owner only this
                       machine itself is served (host: local)
  --key-file FILE      that server's public key, as f2b-setup server printed it
  --from ADDR          the address or range that the key may come from; may be
                       repeated. Without it as before; at first, or with "any",
                       from anywhere
  --backend NAME       auto | nftables | ipset | iptables
  --protect NET        an address or network that no server may have blocked: it
                       comes into never_ban of firewall.yaml; may be repeated
  --systemd WHEN       auto | yes | no; without systemd cron loads the bans at
                       boot
  --remove-owner       take the key of --owner away, and nothing else

${SOPHOSXG_HELP}

${MIKROTIK_HELP}

${OPNSENSE_HELP}

${FORTIGATE_HELP}

${NET2BAN_HELP}

All
  --dry-run            show what would be changed, change nothing
  --prefix DIR         install below DIR (an image, a package); no accounts, no
                       services
  --uninstall          undo it; settings, keys and the ledger of bans are left
  --purge              with --uninstall: remove these too

Options`),
  options: Object.assign({}, COMMON, ...Object.values(SIDES).map((side) => side.options)),
  run: setUp,
})

/** Of the whole text what is about the side that is named, and what is about all of them. */
function ofSide(whole: string) {
  return ([word]: string[]): string => {
    if (word === undefined) return whole
    if (!SIDES[word]) throw unknownWord('side', word, Object.keys(SIDES))
    const [usage = '', ...parts] = whole.split('\n\n')
    const name = `f2b-setup ${word}`
    const ways = usage.replace('Usage:', '      ').split('\n')
    const own = ways.filter((way) => way.trim().startsWith(name)).join('\n')
    const about = parts.filter((part) => part.startsWith(name) && part.includes('\n'))
    return [own.replace('      ', 'Usage:'), ...about, ...parts.slice(-2)].join('\n\n')
  }
}

async function setUp([word, ...rest]: string[], values: Values): Promise<void> {
  const side = word === undefined ? undefined : SIDES[word]
  if (!side) {
    const sides = Object.keys(SIDES)
    if (word !== undefined) throw unknownWord('side', word, sides)
    throw usageFailure(`Nothing to set up given (one of ${sides.join(', ')})`)
  }
  const second = side.words?.find((known) => known === rest[0])
  if (side.words && second === undefined) {
    throw usageFailure(`Say f2b-setup ${word} ${side.words.join('|')}`)
  }
  const [stray] = side.words ? rest.slice(1) : rest
  if (stray !== undefined) throw usageFailure(`One word too many ${quote(stray)}`)
  checkOptions(word ?? '', side, values)
  if (process.getuid?.() !== 0) {
    throw new Failure(EXIT.refused, `Cannot set up the ${word} as an ordinary user: run it as root`)
  }
  // What is public must be readable whatever the caller's umask is; secrets name their own mode.
  process.umask(0o022)
  const target = installTarget(dirname(dirname(realpathSync(process.argv[1] ?? ''))), values)
  // Machines are set up in parallel, and each adds a line to the same file.
  const release = target.dryRun ? () => {} : await lock('/run/fail2ban-perimeter-setup.lock', 60)
  try {
    await side.run(target, values, second ?? '')
  } finally {
    release()
  }
}

function checkOptions(word: string, side: Side, values: Values): void {
  const known = { ...COMMON, ...side.options, verbose: {} }
  const stray = Object.keys(values).find((name) => !(name in known))
  if (stray) throw usageFailure(`Option --${stray} does not belong to f2b-setup ${word}`)
  if (values.purge && !values.uninstall) throw usageFailure('--purge goes with --uninstall only')
  for (const [name, choice] of Object.entries(CHOICES)) {
    const value = values[name]
    if (typeof value === 'string' && !choice.includes(value)) {
      throw usageFailure(`Cannot read --${name} ${quote(value)} (one of ${choice.join(', ')})`)
    }
  }
}
