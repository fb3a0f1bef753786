import { existsSync } from 'node:fs'
import { isIPv6 } from 'node:net'
import { join } from 'node:path'
import * as v from 'valibot'
import { parseDocument, stringify } from 'yaml'
import { textOption, usageFailure, type Values } from '../command.ts'
import { loadConfig } from '../config.ts'
import { EXIT, Failure } from '../failure.ts'
import { checkOwner, quote } from '../lease.ts'
import { run } from '../run.ts'
import { type Firewall, firewalls } from '../settings/firewalls.ts'
import { KINDS } from '../siblings.ts'
import { missingActions } from '../status/jail-actions.ts'
import { ACCOUNT, call } from './account.ts'
import { apply, type Item, say } from './changes.ts'
import { configItem } from './config-file.ts'
import { adviseDelivery, deliveryItems, planDelivery } from './delivery.ts'
import { fail2banItems } from './fail2ban.ts'
import { checkTerminal, fetchHostKeys, knowsHost, readHostKeys, withHostKeys } from './hostkeys.ts'
import { refuseIfUsed } from './in-use.ts'
import { file, fileOnce, folder, textOf, writeAs } from './items.ts'
import type { Settings } from './need-root.ts'
import { CONFIG, CONFIG_DIR, KEY, KNOWN_HOSTS, type Place } from './place.ts'
import { advise, adviseConfig } from './server-advice.ts'
import { hasSystemd } from './units.ts'

export interface Wish {
  owner: string
  firewalls: Firewall[]
  hostKeyFile: string | undefined
}

/** `f2b-setup server`: what stands beside Fail2Ban. */
export async function setUpServer(place: Place, values: Values): Promise<void> {
  const systemd = hasSystemd(textOption(values, 'systemd') ?? 'auto')
  if (place.uninstall) return uninstallServer(place)
  const found = readConfigured(place.at(CONFIG))
  const wish = readWish(values, found)
  const remote = wish.firewalls.filter((firewall) => firewall.host !== 'local')
  const hosts = await hostKeys(place, remote, wish.hostKeyFile)
  const delivery = await planDelivery(place, found ?? wish, {
    ...(values.delivery ? { delivery: String(values.delivery) } : {}),
    systemd,
    isNew: !found,
  })
  const items = settings(place, { wish, hosts, remote: remote.length > 0 })
  await apply([...items, ...fail2banItems(place), ...deliveryItems(place, delivery)], place)
  if (found) adviseConfig(place.at(CONFIG), wish, found)
  await adviseDelivery(place, delivery)
  if (wish.firewalls.length > 0) advise(place, wish, remote)
  if (!place.prefix && !place.dryRun) await checkJails(place.at(CONFIG))
}

/** @throws Failure 78 if a jail that runs lacks what its configuration gives it */
async function checkJails(path: string): Promise<void> {
  const { fail2ban } = loadConfig(path).config
  const isOurs = (command: string): boolean => KINDS.some(({ uses }) => uses.test(command))
  const problems = await missingActions(fail2ban, isOurs)
  if (problems.length === 0) return
  throw new Failure(
    EXIT.config,
    `All is set up, but ${problems.map(({ text }) => text).join('; ')}`,
  )
}

async function uninstallServer(place: Place): Promise<void> {
  const files = fail2banItems(place).map(({ name }) => name)
  const actions = files.flatMap((path) => /action\.d\/(.+)\.conf$/.exec(path)?.[1] ?? [])
  await refuseIfUsed(place, actions, files)
  const options = { delivery: 'queued', systemd: true, isNew: false }
  const delivery = await planDelivery(place, readIfPossible(place.at(CONFIG)), options)
  // Whatever there is: an account as well.
  const items = deliveryItems(place, { ...delivery, root: undefined })
  await apply([...settings(place), ...fail2banItems(place), ...items], place)
}

/** A configuration that is there says what is not given. */
function readWish(values: Values, found: Settings | undefined): Wish {
  const known = typeof found?.owner === 'string' ? found.owner : undefined
  const owner = textOption(values, 'owner') ?? known
  const names = (values.firewall ?? []) as string[]
  if (owner === undefined) throw usageFailure('Missing option --owner')
  if (names.length === 0 && !found) throw usageFailure('Missing option --firewall')
  return {
    owner: checkOwner(owner),
    firewalls: readFirewalls(names),
    hostKeyFile: textOption(values, 'host-key-file'),
  }
}

/** Reads `[user@]host[:port]`; an IPv6 address with a port stands in brackets. @throws Failure 65 */
export function readFirewalls(names: string[]): Firewall[] {
  const result = v.safeParse(firewalls, names.map(readFirewall))
  if (result.success) return result.output
  const [issue] = result.issues
  throw new Failure(
    EXIT.input,
    `Cannot read --firewall ${quote(names.join(' '))}: ${issue.message}`,
  )
}

function readFirewall(name: string): Firewall {
  const at = name.indexOf('@')
  const user = at < 0 ? ACCOUNT : name.slice(0, at)
  const where = name.slice(at + 1)
  const [, bracketed, plain, port] = /^(?:\[(.*)\]|([^:]*))(?::(\d{1,5}))?$/.exec(where) ?? []
  const host = bracketed ?? plain ?? where
  if (host.includes(':') && !isIPv6(host)) {
    throw new Failure(EXIT.input, `Cannot read --firewall ${quote(name)}: not [user@]host[:port]`)
  }
  return host === 'local' ? { host } : { host, user, ...(port && { port: Number(port) }) }
}

/** Settings and keys, all of which `--uninstall` leaves. */
function settings(place: Place, made?: { wish: Wish; hosts: string; remote: boolean }): Item[] {
  const config = place.at(CONFIG)
  const key = place.at(KEY)
  const connection = [
    fileOnce(key, () => makeKey(key, made?.wish.owner ?? '')),
    fileOnce(`${key}.pub`, () => makePublicKey(key)),
    file(place.at(KNOWN_HOSTS), made?.hosts ?? '', 0o644, { kept: true }),
  ]
  return [
    folder(place.at(CONFIG_DIR)),
    place.uninstall || existsSync(config) === false
      ? configItem(place, 'server', made ? configOf(place, made.wish) : '')
      : fileOnce(config, () => {}),
    ...(made?.remote === false ? [] : connection),
  ]
}

function makeKey(path: string, owner: string): Promise<void> {
  return call('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', owner, '-f', path])
}

async function makePublicKey(key: string): Promise<void> {
  if (existsSync(`${key}.pub`)) return
  const { code, stdout, stderr } = await run('ssh-keygen', ['-y', '-P', '', '-f', key])
  if (code !== 0) throw new Failure(EXIT.config, `ssh-keygen: ${stderr.trim()}`)
  writeAs(`${key}.pub`, stdout, 0o644)
}

function configOf(place: Place, { owner, firewalls }: Wish): string {
  return `# fail2ban-perimeter, made once by f2b-setup server and yours from then on.
# Every key is explained in ${join(place.source, 'config.yaml')}
${stringify({ owner, firewalls })}`
}

/** The known_hosts that is wanted. A firewall that is in it already is not asked again. */
async function hostKeys(place: Place, remote: Firewall[], given?: string): Promise<string> {
  let text = textOf(place.at(KNOWN_HOSTS)) ?? ''
  const unknown = remote.filter(({ host }) => given !== undefined || !knowsHost(text, host))
  if (given === undefined && !place.dryRun) unknown.forEach(checkTerminal)
  for (const firewall of unknown) {
    if (given !== undefined) {
      const keys = await readHostKeys(given, firewall, unknown.length === 1)
      text = withHostKeys(text, firewall.host, keys)
    } else if (place.dryRun) {
      say(`would fetch the host key of ${firewall.host} with ssh-keyscan and ask if it is right`)
    } else {
      text = withHostKeys(text, firewall.host, await fetchHostKeys(firewall))
    }
  }
  return text
}

/** What cannot be read must not keep anybody from an uninstallation. */
function readIfPossible(path: string): Settings {
  try {
    return readConfigured(path) ?? {}
  } catch {
    return {}
  }
}

/** What an existing configuration says. @throws Failure 78 if it cannot be read */
function readConfigured(path: string): Settings | undefined {
  const text = textOf(path)
  if (text === undefined) return undefined
  const document = parseDocument(text)
  const [error] = document.errors
  if (error)
    throw new Failure(EXIT.config, `Cannot read "${path}": ${error.message.split('\n')[0]}`)
  return (document.toJS() ?? {}) as Settings
}
