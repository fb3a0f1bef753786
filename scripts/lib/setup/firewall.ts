import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { schema } from '../../../firewall-side/lib/config.ts'
import { createLedger } from '../../../firewall-side/lib/generation.ts'
import { textOption, usageFailure, type Values } from '../command.ts'
import { parseYaml } from '../config.ts'
import { checkOwner } from '../lease.ts'
import { access, knownFrom, knownLine, removeOwner } from './access.ts'
import { call, endSessions, USERADD } from './account.ts'
import { apply, type Item, say } from './changes.ts'
import { refuseIfUsed, settingsOf } from './in-use.ts'
import { file, fileOnce, folder, rootsFolder, textOf } from './items.ts'
import { type KeyLine, readFrom, readPublicKey } from './keys.ts'
import { CONFIG_DIR, fromPackage, type Place } from './place.ts'
import { proposeNetworks, withProtected } from './protect.ts'
import { withSetting } from './settings.ts'
import { adviseServer, adviseSshd } from './sshd.ts'
import { checkOnlyRootWrites, shebang } from './trust.ts'
import { adviseCron, bootItems, hasSystemd } from './units.ts'

const LIB = '/usr/local/lib/fail2ban-perimeter'
const STATE = '/var/lib/fail2ban-perimeter'
const RUN = '/run/fail2ban-perimeter'
const SETTINGS = `${CONFIG_DIR}/firewall.yaml`
const PROGRAMS = [
  'perimeter',
  'banip',
  'unbanip',
  'listips',
  'fluships',
  'checkfw',
  'restorefw',
  'sweepips',
]

interface Wish {
  /** The server to let in; without it only this machine itself is served. */
  line: KeyLine | undefined
  backend: string | undefined
  /** Whom no server may have blocked, beside those in firewall.yaml. */
  protect: readonly string[]
  systemd: boolean
}

/** `f2b-setup firewall`: what a firewall needs, and one more server that may use it. */
export async function setUpFirewall(place: Place, values: Values): Promise<void> {
  if (values['remove-owner'] === true) return removeOwner(place, values)
  const wish = await readWish(place, values)
  const before = wish.line && knownLine(place, wish.line.owner)
  if (place.uninstall) {
    const local = hosts(settingsOf(place)).includes('local')
    const actions = ['perimeter', ...(local ? ['iptables-remote'] : [])]
    await refuseIfUsed(place, actions)
  } else {
    checkOnlyRootWrites(process.execPath)
    if (!place.prefix) checkOnlyRootWrites(LIB)
  }
  const isNew = textOf(place.at(SETTINGS)) === undefined
  // Undone in reverse: first nothing starts any more, then nobody comes in, then nothing is blocked.
  const items = [...programs(place), ...settings(place, wish), ...blocks(place)]
  if (wish.line || place.uninstall)
    items.push(...(await access(place, wish.line, wish.systemd || place.uninstall)))
  items.push(...bootItems(place, wish.systemd))
  await apply(items, place)
  if (place.uninstall) return
  // Who came in with the old key, or from where it may no longer come from, is still there.
  const changed = before && !isDeepStrictEqual(before, wish.line)
  if (changed && !place.prefix && !place.dryRun && (await endSessions())) {
    say('All sessions were ended; servers whose key counts connect again.')
  }
  await advise(place, wish)
  if (isNew && !place.prefix) proposeNetworks(textOf(place.at(SETTINGS)) ?? '')
}

function hosts({ firewalls }: Record<string, unknown>): unknown[] {
  return Array.isArray(firewalls) ? firewalls.map((one) => one?.host) : []
}

async function readWish(place: Place, values: Values): Promise<Wish> {
  const owner = textOption(values, 'owner')
  const keyFile = textOption(values, 'key-file')
  const from = (values.from ?? []) as string[]
  const backend = textOption(values, 'backend')
  const protect = (values.protect ?? []) as string[]
  const systemd = hasSystemd(textOption(values, 'systemd') ?? 'auto')
  const here = { backend, protect, systemd }
  if (place.uninstall) {
    if (owner) throw usageFailure('--uninstall is about all owners (--remove-owner is about one)')
    return { line: undefined, ...here }
  }
  if (owner !== undefined) checkOwner(owner)
  if (owner !== undefined && keyFile === undefined) throw usageFailure('Missing option --key-file')
  if (owner === undefined && keyFile !== undefined) throw usageFailure('Missing option --owner')
  if (owner === undefined && from.length > 0) throw usageFailure('Missing option --owner')
  if (owner === undefined || keyFile === undefined) return { line: undefined, ...here }
  const key = await readPublicKey(keyFile)
  return { line: { owner, from: readFrom(from) ?? knownFrom(place, owner), key }, ...here }
}

/** The programs, each with the path of this Node in its first line. */
function programs(place: Place): Item[] {
  const first = shebang(process.execPath)
  const built = PROGRAMS.map((name) => {
    const text = fromPackage(place, `dist/firewall-side/${name}.cjs`).replace(/^#!.*\n/, '')
    return file(place.at(`${LIB}/${name}`), `${first}\n${text}`, 0o755)
  })
  const gate = fromPackage(place, 'firewall-side/gate.sh')
  return [folder(place.at(LIB)), ...built, file(place.at(`${LIB}/gate`), gate, 0o755)]
}

/** What the programs read and write: settings and ledger. Both are left by `--uninstall`. */
function settings(place: Place, { backend, protect }: Wish): Item[] {
  const path = place.at(SETTINGS)
  const found = textOf(path)
  const before = found ?? fromPackage(place, 'firewall-side/firewall.yaml')
  const { text: set, old } = withSetting(before, 'backend', backend, path)
  if (!place.uninstall) parseYaml(set, path, schema)
  const text = withProtected(set, protect, path)
  if (text !== set) parseYaml(text, path, schema)
  const backendNote = set === found ? [] : [`backend ${old} -> ${backend}`]
  const protectNote = text === set ? [] : [`never_ban: ${protect.join(', ')}`]
  const note = found === undefined ? '' : [...backendNote, ...protectNote].join('; ')
  const state = place.at(STATE)
  const ledger = join(state, 'firewall.leases')
  return [
    folder(place.at(CONFIG_DIR)),
    text === found ? fileOnce(path, () => {}) : file(path, text, 0o644, { kept: true, note }),
    // Whoever could replace the ledger would say who is blocked.
    rootsFolder(state, 0o700),
    { ...fileOnce(ledger, () => createLedger(ledger)), remove: () => removeOurs(state) },
  ]
}

/** The ledger and what stands beside it; what the server side keeps there is not ours. */
function removeOurs(folder: string): void {
  for (const name of oursIn(folder)) rmSync(join(folder, name), { recursive: true })
}

function oursIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).filter((n) => n.startsWith('firewall.')) : []
}

/** What is in the kernel, which only an uninstallation touches, while the program is still there. */
function blocks(place: Place): Item[] {
  const program = `${LIB}/restorefw`
  if (place.prefix || !place.uninstall) return []
  const made = { make() {} }
  return [
    folder(RUN),
    {
      name: `what the firewall side keeps in ${RUN}/`,
      look: () => (oursIn(RUN).length > 0 ? 'same' : 'absent'),
      remove: () => removeOurs(RUN),
      ...made,
    },
    {
      name: 'our tables, chains and sets in the kernel',
      look: () => (existsSync(program) ? 'same' : 'absent'),
      remove: () => call(program, ['--remove']),
      ...made,
    },
  ]
}

async function advise(place: Place, { line, systemd }: Wish): Promise<void> {
  adviseCron(place, systemd)
  if (!line) return adviseServer(place)
  if (place.prefix)
    say(`note: --prefix leaves the user database alone; make the user with: ${USERADD}`)
  else await adviseSshd(line.from)
  await adviseServer(place, line.owner)
}
