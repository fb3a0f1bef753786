import { existsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { deliveryDirectory, queueDirectory } from '../delivery/state.ts'
import { canEnter, canReach } from '../delivery-account.ts'
import { EXIT, Failure } from '../failure.ts'
import { quote } from '../lease.ts'
import { KINDS } from '../siblings.ts'
import { $, tried } from './commands.ts'
import {
  adviseHardened,
  adviseSwitches,
  isQueued,
  queueSwitches,
  restartCommand,
} from './fail2ban.ts'
import {
  CONFIG,
  change,
  type InstallTarget,
  LIB,
  type Resource,
  STATE_DIR,
  say,
  unwanted,
} from './plan.ts'
import { endProcesses } from './processes.ts'
import {
  DELIVERY_ACCOUNT,
  deliveryAccount,
  deliveryFolder,
  queueFolder,
  remembered,
  rights,
} from './rights.ts'
import {
  accountEntry,
  file,
  folder,
  fromPackage,
  installedUnits,
  rendered,
  services,
  sharedFolder,
  textOf,
  type UnitValues,
  unit,
  wantedIf,
} from './things.ts'
import { checkOnlyRootWrites, nodeInCron, nodeInUnit } from './trust.ts'
import { readSettings, type Settings } from './yaml.ts'

/** The server's key to its firewalls. */
export const KEY = '/etc/fail2ban-perimeter/id_ed25519'

const PROGRAM = `${LIB}/deliver.cjs`
const DELIVER = 'fail2ban-perimeter-deliver.service'
const SOCKET = 'fail2ban-perimeter-deliver.socket'
const SYNC = 'fail2ban-perimeter-sync.service'
const TIMER = 'fail2ban-perimeter-sync.timer'

/** How bans get to their targets on this server. */
export interface Delivery {
  queued: boolean
  /** It was the other way before. */
  changes: boolean
  systemd: boolean
  stateDir: string
  isFirewall: boolean
  /** The files of secrets that the configuration names. */
  secrets: string[]
  /** Why f2b-deliver stays root; undefined if an account delivers. */
  root: string | undefined
}

/**
 * What is wanted. Without `--delivery` an installation keeps the way it has; a new one queues where
 * systemd sees to it that something takes the bans on.
 *
 * @param isNew there is no configuration yet
 */
export async function planDelivery(
  target: InstallTarget,
  settings: Settings,
  { delivery, systemd, isNew }: { delivery?: string; systemd: boolean; isNew: boolean },
): Promise<Delivery> {
  const before = isQueued(target)
  const queued = delivery ? delivery === 'queued' : isNew ? systemd : before
  const stateDir = readStateDir(settings)
  const isFirewall = hostsOf(settings).includes('local')
  const root = await whyRoot(target, settings, { stateDir, systemd })
  const secrets = secretsOf(settings)
  return { queued, changes: queued !== before, systemd, stateDir, isFirewall, secrets, root }
}

/** @throws Failure 78 if a unit or an action could not name it */
function readStateDir({ state_dir = STATE_DIR }: Settings): string {
  if (/^\/[\w./@:+-]+$/.test(String(state_dir))) return String(state_dir)
  throw new Failure(EXIT.config, `Cannot use state_dir ${quote(String(state_dir))}`)
}

/** Programs, services, rights and the queue: in the order in which they can be made. */
export function deliveryParts(target: InstallTarget, delivery: Delivery): Resource[] {
  const { queued, systemd, stateDir, root } = delivery
  if (!target.uninstall) {
    checkOnlyRootWrites(process.execPath)
    if (!target.prefix) checkOnlyRootWrites(LIB)
  }
  const owned = queued && root === undefined
  const state = target.at(stateDir)
  const stop = () => stopDelivery(target)
  const programs = ['deliver', 'sync'].map((name) => {
    const text = target.uninstall ? '' : fromPackage(target, `dist/${name}.cjs`)
    return file(target.at(`${LIB}/${name}.cjs`), text, 0o755)
  })
  const own = deliveryFolder(state, owned, stop)
  const [deliver, socket, sync, timer] = unitsOf(target, delivery, owned)
  // Without an account nothing is asked at the socket any more.
  const asked = owned || !queued
  const names = asked ? [SOCKET, DELIVER] : [DELIVER]
  const units = asked ? [socket, deliver] : [deliver]
  const parts = [...programs, own]
  const running = services(target, names, units, { parts, after: () => deliverRest(target) })
  const noSocket = asked ? [] : unwanted([socket, ...services(target, [SOCKET], [socket])])
  const deliverer = [...noSocket, ...units, ...running]
  const shared = rights(target.at(CONFIG), delivery.secrets, target.at(KEY))
  const account = target.prefix ? [] : [deliveryAccount(state, stop), shared]
  // What is taken away goes in the order of an uninstallation.
  const ways = [
    wantedIf(owned, account),
    [queueFolder(state, owned), own],
    wantedIf(queued && systemd, deliverer),
  ]
  const switches = wantedIf(queued, queueSwitches(target, stateDir))
  const table = { ...cronTable(target, queued), unwanted: systemd }
  return [
    folder(target.at(LIB)),
    ...programs,
    sharedFolder(state),
    ...(target.uninstall ? [remembered(state)] : []),
    ...(queued
      ? [...ways.flat(), table, ...switches]
      : [...switches, table, ...ways.toReversed().flat()]),
    ...wantedIf(systemd, [
      sync,
      timer,
      ...services(target, [TIMER], [sync, timer], { parts: [own] }),
    ]),
  ]
}

function unitsOf(target: InstallTarget, { stateDir, isFirewall }: Delivery, owned: boolean) {
  const roots = {
    NODE: nodeInUnit(),
    STATE: stateDir,
    CAPABILITIES: isFirewall ? 'CAP_NET_ADMIN CAP_NET_RAW' : '',
    WRITES: isFirewall ? `${stateDir} /run` : stateDir,
    RUNTIME: 'fail2ban-perimeter',
    RUNTIME_MODE: '0755',
    RUNTIME_STAYS: 'yes',
    SOCKET: undefined,
    USER: undefined,
  }
  const accounts = {
    ...roots,
    WRITES: deliveryDirectory(stateDir),
    RUNTIME: `${DELIVERY_ACCOUNT}-deliver`,
    RUNTIME_MODE: '0700',
    RUNTIME_STAYS: 'no',
    SOCKET,
    USER: DELIVERY_ACCOUNT,
  }
  const one = (name: string, values: UnitValues) =>
    unit(target, name, rendered(target, `scripts/units/${name}`, values))
  return [
    one(DELIVER, owned ? accounts : roots),
    one(SOCKET, {}),
    one(SYNC, roots),
    one(TIMER, {}),
  ] as const
}

/** The table for cron. The deliverer that it has started ends when the table changes. */
function cronTable(target: InstallTarget, queued: boolean): Resource {
  const values = { NODE: nodeInCron(), WHEN: queued ? ['@reboot', '* * * * *'] : [] }
  const name = 'fail2ban-perimeter-server'
  const table = rendered(target, `scripts/units/${name}.cron`, values)
  const one = file(target.at(`/etc/cron.d/${name}`), table)
  const end = async (): Promise<void> => {
    if (!target.prefix) await endProcesses(({ args }) => args[1] === PROGRAM)
  }
  return {
    ...one,
    async apply() {
      const before = textOf(one.name) ?? ''
      one.apply?.()
      await end()
      if (before.includes(PROGRAM) && !table.includes(PROGRAM)) await deliverRest(target)
    },
    async undo() {
      one.undo()
      await end()
      await deliverRest(target)
    },
  }
}

/** Ends what delivers or syncs; the services begin again when they are looked after. */
async function stopDelivery(target: InstallTarget): Promise<void> {
  const there = installedUnits(target, [TIMER, SYNC, SOCKET, DELIVER])
  if (target.live && there.length > 0) await $`systemctl stop ${there}`
  if (target.prefix) return
  const uid = (await accountEntry(DELIVERY_ACCOUNT))?.uid
  // Also a shared connection of a command that was used by hand.
  await endProcesses((one) => one.uid === uid || one.args[1] === PROGRAM)
}

/** Ends an f2b-sync that still waits for Fail2Ban: it would make the state directory anew. */
export async function endWaitingSyncs(): Promise<void> {
  await endProcesses(({ args: [, program = '', option] }) => {
    return option === '--wait' && /(^|\/)(f2b-sync|sync\.cjs)$/.test(program)
  })
}

/** What was queued before: nothing would take it on. */
async function deliverRest({ prefix }: InstallTarget): Promise<void> {
  if (prefix) return
  const { code, stderr } = await tried`${process.execPath} ${PROGRAM}`
  if (code !== 0) say(`note: not all that was queued could be delivered: ${stderr.trim()}`)
}

/** What a person must know or do. */
export async function adviseDelivery(target: InstallTarget, delivery: Delivery): Promise<void> {
  const { queued, changes, systemd, root, stateDir } = delivery
  if (changes) {
    say(
      `note: bans are ${queued ? 'queued' : 'direct'} from when Fail2Ban reads its actions again:`,
    )
    say(`      ${restartCommand()}`)
  }
  if (queued && root !== undefined && !target.prefix) say(`note: f2b-deliver runs as root: ${root}`)
  if (queued && target.prefix) {
    say(`note: on the machine itself, f2b-setup server makes the user ${DELIVERY_ACCOUNT} and`)
    say(`      gives it ${stateDir}/delivery`)
  }
  if (queued) await adviseHardened(target, queueDirectory(stateDir))
  adviseSwitches(target, queued)
  if (!systemd && !target.prefix && !['cron', 'crond'].some((d) => existsSync(`/usr/sbin/${d}`))) {
    say('note: there is neither systemd nor cron here: run these in your own way')
    if (queued) say(`  ${nodeInCron()} ${PROGRAM} --follow`)
    say(`  ${nodeInCron()} ${LIB}/sync.cjs   # every minute`)
  }
}

/**
 * Lets the f2b-deliver that systemd runs here do what config.yaml asks of it now: read the secrets
 * of another target, write its list. Where nothing is delivered, or by cron as root, it changes
 * nothing.
 */
export async function realignDelivery(target: InstallTarget): Promise<void> {
  if (target.prefix || target.dryRun || installedUnits(target, [DELIVER]).length === 0) return
  const settings = readSettings(target) ?? {}
  const delivery = await planDelivery(target, settings, { systemd: true, isNew: false })
  const how = { ...target, uninstall: false, purge: false }
  const changed = await change(deliveryParts(how, delivery), how)
  if (changed > 0 && delivery.root !== undefined)
    say(`note: f2b-deliver runs as root: ${delivery.root}`)
}

/** What an account without rights could not do, or would not be safe with. */
export async function whyRoot(
  target: InstallTarget,
  settings: Settings,
  { stateDir, systemd }: { stateDir: string; systemd: boolean },
): Promise<string | undefined> {
  if (target.prefix) return 'an account is made on the machine itself only'
  if (!systemd) return 'only systemd can lock an account in'
  if (hostsOf(settings).includes('local')) return 'this machine is a firewall itself'
  // Root reads it as well, and people write in it: its folder cannot be an account's.
  if (settings.fortigate) return 'an account cannot write the list of fortigate'
  const units = ['server', 'client'].map((word) => `/etc/systemd/system/net2ban-${word}.service`)
  if (units.some((path) => existsSync(path))) return `net2ban keeps its books in ${stateDir}`
  if (!canReach(process.execPath)) return `an account cannot run "${process.execPath}"`
  const gid = (await accountEntry(DELIVERY_ACCOUNT))?.gid
  const closed = secretsOf(settings).find((path) => !canShow(path, gid))
  if (closed !== undefined) return `an account cannot read "${closed}"`
  for (const { host, identity_file } of firewallsOf(settings)) {
    if (identity_file !== undefined) return `an account cannot read "${identity_file}"`
    if (typeof host === 'string' && (await isRootsAlias(host))) {
      return `the connection to ${host} is set up in root's own ssh_config`
    }
  }
  return undefined
}

/** The files of secrets that the targets need. */
function secretsOf(settings: Settings): string[] {
  const found: string[] = []
  const visit = (value: unknown): void => {
    for (const [key, one] of Object.entries(value && typeof value === 'object' ? value : {})) {
      if (/^(pass|token|key|secret|authkey)_file$/.test(key)) found.push(String(one))
      else visit(one)
    }
  }
  for (const { section, secrets = section } of KINDS) {
    const path = secrets.split('.')
    visit(path.reduce<unknown>((at, key) => (at as Record<string, unknown>)?.[key], settings))
  }
  return [...new Set(found)].filter((path) => existsSync(path))
}

/** True if a file is root's alone, or already the account's to read, in folders open to all. */
function canShow(path: string, account: number | undefined): boolean {
  const { uid, gid } = statSync(path)
  return uid === 0 && (gid === 0 || gid === account) && canEnter(dirname(path))
}

/** True if root's ~/.ssh/config changes how the host is reached. */
async function isRootsAlias(host: string): Promise<boolean> {
  const own = await tried`ssh -G -- ${host}`
  const common = await tried`ssh -F /etc/ssh/ssh_config -G -- ${host}`
  return own.code === 0 && own.stdout !== common.stdout
}

export function hostsOf(settings: Settings): unknown[] {
  return firewallsOf(settings).map(({ host }) => host)
}

function firewallsOf({ firewalls }: Settings): { host?: unknown; identity_file?: unknown }[] {
  return Array.isArray(firewalls) ? firewalls.filter((one) => one && typeof one === 'object') : []
}
