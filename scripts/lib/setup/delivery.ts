import { existsSync } from 'node:fs'
import { queueDirectory } from '../delivery/state.ts'
import { EXIT, Failure } from '../failure.ts'
import { quote } from '../lease.ts'
import { type Item, say } from './changes.ts'
import {
  cronItem,
  deliverService,
  oldSocket,
  stopDelivery,
  syncService,
  unitFile,
} from './delivery-services.ts'
import {
  cronTable,
  DELIVER,
  deliverSocket,
  deliverUnit,
  LIB,
  program,
  SOCKET,
  SYNC,
  syncTimer,
  syncUnit,
  TIMER,
} from './delivery-units.ts'
import { restartCommand } from './fail2ban.ts'
import { adviseHardened } from './hardened.ts'
import { file, folder, sharedFolder } from './items.ts'
import { adviseLocals, isQueued, locals } from './locals.ts'
import { hostsOf, type Settings, secretsOf, whyRoot } from './need-root.ts'
import { CONFIG, fromPackage, KEY, type Place } from './place.ts'
import {
  accountItem,
  DELIVERY_ACCOUNT,
  deliveryFolder,
  queueFolder,
  remains,
  rights,
} from './rights.ts'
import { checkOnlyRootWrites } from './trust.ts'

const STATE_DIR = '/var/lib/fail2ban-perimeter'

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
  place: Place,
  settings: Settings,
  { delivery, systemd, isNew }: { delivery?: string; systemd: boolean; isNew: boolean },
): Promise<Delivery> {
  const before = isQueued(place)
  const queued = delivery ? delivery === 'queued' : isNew ? systemd : before
  const stateDir = readStateDir(settings)
  const isFirewall = hostsOf(settings).includes('local')
  const root = await whyRoot(place, settings, { stateDir, systemd })
  const secrets = secretsOf(settings)
  return { queued, changes: queued !== before, systemd, stateDir, isFirewall, secrets, root }
}

/** @throws Failure 78 if a unit could not name it */
function readStateDir({ state_dir = STATE_DIR }: Settings): string {
  if (/^\/[\w./@:+-]+$/.test(String(state_dir))) return String(state_dir)
  throw new Failure(EXIT.config, `Cannot use state_dir ${quote(String(state_dir))}`)
}

/** Programs, services, rights and the queue: in the order in which they can be made. */
export function deliveryItems(place: Place, delivery: Delivery): Item[] {
  const { queued, systemd, stateDir } = delivery
  if (!place.uninstall) {
    checkOnlyRootWrites(process.execPath)
    if (!place.prefix) checkOnlyRootWrites(LIB)
  }
  const programs = ['deliver', 'sync'].map((name) => {
    const text = place.uninstall ? '' : fromPackage(place, `dist/${name}.cjs`)
    return file(place.at(`${LIB}/${name}.cjs`), text, 0o755)
  })
  const state = place.at(stateDir)
  const owned = queued && delivery.root === undefined
  const stop = () => stopDelivery(place)
  const books = deliveryFolder(state, owned, stop)
  const [deliverer, syncer] = services(place, delivery, programs, books)
  const queue = [queueFolder(state, owned), books]
  const shared = rights(place.at(CONFIG), delivery.secrets, place.at(KEY))
  const account = place.prefix ? [] : [accountItem(state, stop), shared]
  const base = [folder(place.at(LIB)), ...programs, sharedFolder(state)]
  // An installation has nothing to make of it.
  if (place.uninstall) base.push(remains(state))
  const wanted = (yes: boolean, items: Item[]): Item[] => (yes ? items : unwanted(items))
  // Without a queue: what is taken away goes in the order of an uninstallation.
  const parts = [wanted(owned, account), queue, wanted(queued && systemd, deliverer)]
  const action = wanted(queued, locals(place, stateDir))
  const table = cron(place, delivery)
  const ordered = queued
    ? [...parts.flat(), table, ...action]
    : [...action, table, ...parts.toReversed().flat()]
  return [...base, ...ordered, ...wanted(systemd, syncer)]
}

/** What a person must know or do. */
export async function adviseDelivery(place: Place, delivery: Delivery): Promise<void> {
  const { queued, changes, systemd, root, stateDir } = delivery
  if (changes) {
    say(
      `note: bans are ${queued ? 'queued' : 'direct'} from when Fail2Ban reads its actions again:`,
    )
    say(`      ${restartCommand()}`)
  }
  if (queued && root !== undefined && !place.prefix) say(`note: f2b-deliver runs as root: ${root}`)
  if (queued && place.prefix) {
    say(`note: on the machine itself, f2b-setup server makes the user ${DELIVERY_ACCOUNT} and`)
    say(`      gives it ${stateDir}/delivery`)
  }
  if (queued) await adviseHardened(place, queueDirectory(stateDir))
  adviseLocals(place, queued)
  if (!systemd && !place.prefix && !['cron', 'crond'].some((d) => existsSync(`/usr/sbin/${d}`))) {
    say('note: there is neither systemd nor cron here: run these in your own way')
    if (queued) say(`  ${program('deliver')} --follow`)
    say(`  ${program('sync')}   # every minute`)
  }
}

function services(
  place: Place,
  delivery: Delivery,
  programs: Item[],
  books: Item,
): [Item[], Item[]] {
  const { stateDir, isFirewall, root, queued } = delivery
  const owned = queued && root === undefined
  const needs = { stateDir, isFirewall, owned }
  const deliver = unitFile(place, DELIVER, deliverUnit(needs))
  const socket = unitFile(place, SOCKET, deliverSocket())
  const sync = unitFile(place, SYNC, syncUnit(needs))
  const timer = unitFile(place, TIMER, syncTimer())
  const units = owned ? [socket, deliver] : [deliver]
  const old = queued && !owned ? oldSocket(place, socket).toReversed() : []
  return [
    [
      ...old,
      ...(queued ? units : [socket, deliver]),
      ...deliverService(place, units, [...programs, books]),
    ],
    [sync, timer, ...syncService(place, [sync, timer], [books])],
  ]
}

function cron(place: Place, { queued, systemd }: Delivery): Item {
  return { ...cronItem(place, cronTable(queued)), unwanted: systemd }
}

function unwanted(items: Item[]): Item[] {
  return items.toReversed().map((item) => ({ ...item, unwanted: true }))
}
