import { existsSync, readdirSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { schema } from '../../../firewall-side/lib/config.ts'
import { createLedger } from '../../../firewall-side/lib/generation.ts'
import { type Address, isSingle, overlaps, parseAddress } from '../address.ts'
import { textOption, usageFailure, type Values } from '../command.ts'
import { parseYaml } from '../config.ts'
import { checkOwner } from '../lease.ts'
import {
  ACCOUNT,
  access,
  type KeyLine,
  knownFrom,
  knownLine,
  readFrom,
  readPublicKey,
  removeOwner,
  USERADD,
} from './access.ts'
import { $ } from './commands.ts'
import { hostsOf } from './delivery.ts'
import { refuseIfUsed } from './in-use.ts'
import {
  CONFIG_DIR,
  hasSystemd,
  type InstallTarget,
  install,
  LIB,
  type Resource,
  RUN_DIR,
  STATE_DIR,
  say,
} from './plan.ts'
import { adviseServer, adviseSshd } from './ssh.ts'
import {
  endSessions,
  file,
  fileOnce,
  folder,
  fromPackage,
  remnants,
  services,
  stateFolder,
  textOf,
  unit,
  wantedIf,
} from './things.ts'
import { checkOnlyRootWrites, shebang } from './trust.ts'
import { neverIn, parsed, settingsIfReadable, withProtected, withValue } from './yaml.ts'

const SETTINGS = `${CONFIG_DIR}/firewall.yaml`
const PROGRAMS = 'perimeter banip unbanip listips fluships checkfw restorefw sweepips'.split(' ')

/** What blocks again at boot, and what frees what is over. */
const RESTORE = 'fail2ban-perimeter-restore.service'
const SWEEP = 'fail2ban-perimeter-sweep.service'
const TIMER = 'fail2ban-perimeter-sweep.timer'

interface Wish {
  /** The server to let in; without it only this machine itself is served. */
  line: KeyLine | undefined
  backend: string | undefined
  /** Whom no server may have blocked, beside those in firewall.yaml. */
  protect: readonly string[]
  systemd: boolean
}

/** `f2b-setup firewall`: what a firewall needs, and one more server that may use it. */
export async function setUpFirewall(target: InstallTarget, values: Values): Promise<void> {
  if (values['remove-owner'] === true) return removeOwner(target, values)
  const wish = await readWish(target, values)
  const before = wish.line && knownLine(target, wish.line.owner)
  if (target.uninstall) {
    const local = hostsOf(settingsIfReadable(target)).includes('local')
    await refuseIfUsed(target, ['perimeter', ...(local ? ['iptables-remote'] : [])])
  } else {
    checkOnlyRootWrites(process.execPath)
    if (!target.prefix) checkOnlyRootWrites(LIB)
  }
  const isNew = textOf(target.at(SETTINGS)) === undefined
  // Undone in reverse: first nothing starts any more, then nobody comes in, then nothing is blocked.
  const parts = [...programs(target), ...settings(target, wish), ...blocks(target)]
  if (wish.line || target.uninstall)
    parts.push(...(await access(target, wish.line, wish.systemd || target.uninstall)))
  await install([...parts, ...boot(target, wish.systemd)], target)
  if (target.uninstall) return
  // Who came in with the old key, or from where it may no longer come from, is still there.
  const changed = before && !isDeepStrictEqual(before, wish.line)
  if (changed && !target.prefix && !target.dryRun && (await endSessions(ACCOUNT))) {
    say('All sessions were ended; servers whose key counts connect again.')
  }
  await advise(target, wish)
  if (isNew && !target.prefix) proposeNetworks(textOf(target.at(SETTINGS)) ?? '')
}

async function readWish(target: InstallTarget, values: Values): Promise<Wish> {
  const owner = textOption(values, 'owner')
  const keyFile = textOption(values, 'key-file')
  const from = (values.from ?? []) as string[]
  const backend = textOption(values, 'backend')
  const protect = (values.protect ?? []) as string[]
  const here = { backend, protect, systemd: hasSystemd(values) }
  if (target.uninstall) {
    if (owner) throw usageFailure('--uninstall is about all owners (--remove-owner is about one)')
    return { line: undefined, ...here }
  }
  if (owner !== undefined) checkOwner(owner)
  if (owner !== undefined && keyFile === undefined) throw usageFailure('Missing option --key-file')
  if (owner === undefined && (keyFile !== undefined || from.length > 0)) {
    throw usageFailure('Missing option --owner')
  }
  if (owner === undefined || keyFile === undefined) return { line: undefined, ...here }
  const key = await readPublicKey(keyFile)
  return { line: { owner, from: readFrom(from) ?? knownFrom(target, owner), key }, ...here }
}

/** The programs, each with the path of this Node in its first line. */
function programs(target: InstallTarget): Resource[] {
  const first = shebang(process.execPath)
  const built = PROGRAMS.map((name) => {
    const text = fromPackage(target, `dist/firewall-side/${name}.cjs`).replace(/^#!.*\n/, '')
    return file(target.at(`${LIB}/${name}`), `${first}\n${text}`, 0o755)
  })
  const gate = fromPackage(target, 'firewall-side/gate.sh')
  return [folder(target.at(LIB)), ...built, file(target.at(`${LIB}/gate`), gate, 0o755)]
}

/** What the programs read and write: settings and ledger. Both are left by `--uninstall`. */
function settings(target: InstallTarget, { backend, protect }: Wish): Resource[] {
  const path = target.at(SETTINGS)
  const found = textOf(path)
  const before = found ?? fromPackage(target, 'firewall-side/firewall.yaml')
  const set = backend === undefined ? before : withValue(before, ['backend'], backend, path)
  if (!target.uninstall) parseYaml(set, path, schema)
  const text = withProtected(set, protect, path)
  if (text !== set) parseYaml(text, path, schema)
  const old = () => parsed(before, path).get('backend')
  const backendNote = set === found ? [] : [`backend ${old()} -> ${backend}`]
  const protectNote = text === set ? [] : [`never_ban: ${protect.join(', ')}`]
  const note = found === undefined ? '' : [...backendNote, ...protectNote].join('; ')
  const state = target.at(STATE_DIR)
  const ledger = join(state, 'firewall.leases')
  return [
    folder(target.at(CONFIG_DIR)),
    text === found ? fileOnce(path, () => {}) : file(path, text, 0o644, { kept: true, note }),
    // Who could replace the ledger would say who is blocked.
    stateFolder(target, 0o700),
    // What the server side keeps beside it is not ours.
    { ...fileOnce(ledger, () => createLedger(ledger)), undo: () => $`rm -r -- ${oursIn(state)}` },
  ]
}

function oursIn(path: string): string[] {
  const names = existsSync(path) ? readdirSync(path) : []
  return names.filter((name) => name.startsWith('firewall.')).map((name) => join(path, name))
}

/** What is in the kernel, which only an uninstallation touches, while the program is still there. */
function blocks(target: InstallTarget): Resource[] {
  const program = `${LIB}/restorefw`
  if (target.prefix || !target.uninstall) return []
  return [
    folder(RUN_DIR),
    remnants(`what the firewall side keeps in ${RUN_DIR}/`, () => oursIn(RUN_DIR), false),
    {
      name: 'our tables, chains and sets in the kernel',
      state: () => (existsSync(program) ? 'same' : 'absent'),
      undo: () => $`${program} --remove`,
    },
  ]
}

/** systemd units, or a cron file where there is no systemd. The other of the two is removed. */
function boot(target: InstallTarget, systemd: boolean): Resource[] {
  const ours = (name: string) => fromPackage(target, `firewall-side/${name}`)
  const units = [RESTORE, SWEEP, TIMER].map((name) => unit(target, name, ours(name)))
  const cron = file(target.at('/etc/cron.d/fail2ban-perimeter'), ours('cron'))
  const all = wantedIf(systemd, [...units, ...services(target, [RESTORE, TIMER], units)])
  return [...all, { ...cron, unwanted: systemd }]
}

async function advise(target: InstallTarget, { line, systemd }: Wish): Promise<void> {
  adviseCron(target, systemd)
  if (!line) return adviseServer(target)
  if (target.prefix)
    say(`note: --prefix leaves the user database alone; make the user with: ${USERADD}`)
  else await adviseSshd(line.from)
  await adviseServer(target, line.owner)
}

/** What must be added by hand where cron is to do it and there is none. */
function adviseCron({ prefix }: InstallTarget, systemd: boolean): void {
  const daemons = ['/usr/sbin/cron', '/usr/sbin/crond', '/usr/sbin/anacron']
  if (systemd || prefix || daemons.some((path) => existsSync(path))) return
  say('note: there is neither systemd nor cron here: install cron, or run restorefw at boot and')
  say('      sweepips every minute (both in /usr/local/lib/fail2ban-perimeter) in your own way')
}

/** Names the networks that this firewall is in and that a server's key could have blocked. */
function proposeNetworks(text: string): void {
  const never = neverIn(text)
  const open = connected().filter(({ network }) => {
    return !never.some((known) => known.prefix <= network.prefix && overlaps(known, network))
  })
  if (open.length === 0) return
  say('note: a server may have addresses blocked of the networks that this firewall is in; to keep')
  say('      one of them out of its reach, repeat this with:')
  for (const { network, name } of open) say(`  --protect ${network.text}   # ${name}`)
}

function connected(): { network: Address; name: string }[] {
  const found = new Map<string, { network: Address; name: string }>()
  for (const [name, entries = []] of Object.entries(networkInterfaces())) {
    for (const { cidr, internal } of entries) {
      if (cidr === null || internal || cidr.startsWith('fe80:')) continue
      const network = parseAddress(cidr)
      if (!isSingle(network)) found.set(network.text, { network, name })
    }
  }
  return [...found.values()]
}
