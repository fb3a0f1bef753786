import { existsSync } from 'node:fs'
import { isIPv6 } from 'node:net'
import { join } from 'node:path'
import * as v from 'valibot'
import { stringify } from 'yaml'
import { textOption, usageFailure, type Values } from '../command.ts'
import { loadConfig } from '../config.ts'
import { EXIT, Failure } from '../failure.ts'
import { checkOwner, quote } from '../lease.ts'
import { type Firewall, firewalls } from '../settings/firewalls.ts'
import { KINDS } from '../siblings.ts'
import { missingActions } from '../status/jail-actions.ts'
import { ACCOUNT } from './access.ts'
import { $, tried } from './commands.ts'
import {
  adviseDelivery,
  deliveryParts,
  endWaitingSyncs,
  hostsOf,
  KEY,
  planDelivery,
} from './delivery.ts'
import { fail2banFiles, restartCommand } from './fail2ban.ts'
import { refuseIfUsed } from './in-use.ts'
import {
  CONFIG,
  CONFIG_DIR,
  hasSystemd,
  type InstallTarget,
  install,
  type Resource,
  say,
} from './plan.ts'
import { checkTerminal, fetchHostKeys, knowsHost, readHostKeys, withHostKeys } from './ssh.ts'
import { file, fileOnce, folder, textOf, writeAs } from './things.ts'
import { configEdit, readSettings, type Settings, settingsIfReadable } from './yaml.ts'

const KNOWN_HOSTS = `${CONFIG_DIR}/known_hosts`

interface Wish {
  owner: string
  firewalls: Firewall[]
  hostKeyFile: string | undefined
}

/** `f2b-setup server`: what stands beside Fail2Ban. */
export async function setUpServer(target: InstallTarget, values: Values): Promise<void> {
  if (target.uninstall) return uninstall(target)
  const found = readSettings(target)
  const wish = readWish(values, found)
  const remote = wish.firewalls.filter((firewall) => firewall.host !== 'local')
  const hosts = await hostKeys(target, remote, wish.hostKeyFile)
  const delivery = await planDelivery(target, found ?? wish, {
    ...(values.delivery ? { delivery: String(values.delivery) } : {}),
    systemd: hasSystemd(values),
    isNew: !found,
  })
  const config = target.at(CONFIG)
  const parts = [
    folder(target.at(CONFIG_DIR)),
    found ? fileOnce(config, () => {}) : configEdit(target, 'server', configOf(target, wish)),
    ...(remote.length > 0 ? connection(target, wish.owner, hosts) : []),
    ...fail2banFiles(target),
    ...deliveryParts(target, delivery),
  ]
  await install(parts, target)
  if (found) adviseConfig(config, wish, found)
  await adviseDelivery(target, delivery)
  if (wish.firewalls.length > 0) advise(target, wish, remote)
  if (!target.prefix && !target.dryRun) await checkJails(config)
}

async function uninstall(target: InstallTarget): Promise<void> {
  const files = fail2banFiles(target)
  const actions = files.flatMap(({ name }) => /action\.d\/(.+)\.conf$/.exec(name)?.[1] ?? [])
  await refuseIfUsed(target, actions, files)
  if (!target.prefix && !target.dryRun) await endWaitingSyncs()
  const options = { delivery: 'queued', systemd: true, isNew: false }
  const delivery = await planDelivery(target, settingsIfReadable(target), options)
  const parts = [
    folder(target.at(CONFIG_DIR)),
    configEdit(target, 'server', ''),
    ...connection(target, '', ''),
    ...files,
    // Whatever there is: an account as well.
    ...deliveryParts(target, { ...delivery, root: undefined }),
  ]
  await install(parts, target)
}

/** @throws Failure 78 if a jail that runs lacks what its configuration gives it */
async function checkJails(path: string): Promise<void> {
  const { fail2ban } = loadConfig(path).config
  const isOurs = (command: string): boolean => KINDS.some(({ uses }) => uses.test(command))
  const problems = await missingActions(fail2ban, isOurs)
  if (problems.length === 0) return
  const what = problems.map(({ text }) => text).join('; ')
  throw new Failure(EXIT.config, `All is set up, but ${what}`)
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

/** Keys and hosts, all of which `--uninstall` leaves. */
function connection(target: InstallTarget, owner: string, hosts: string): Resource[] {
  const key = target.at(KEY)
  return [
    fileOnce(key, () => $`ssh-keygen -q -t ed25519 -N ${''} -C ${owner} -f ${key}`),
    fileOnce(`${key}.pub`, () => makePublicKey(key)),
    file(target.at(KNOWN_HOSTS), hosts, 0o644, { kept: true }),
  ]
}

async function makePublicKey(key: string): Promise<void> {
  if (existsSync(`${key}.pub`)) return
  const { code, stdout, stderr } = await tried`ssh-keygen -y -P ${''} -f ${key}`
  if (code !== 0) throw new Failure(EXIT.config, `ssh-keygen: ${stderr.trim()}`)
  writeAs(`${key}.pub`, stdout, 0o644)
}

function configOf({ source }: InstallTarget, { owner, firewalls }: Wish): string {
  const schema = join(source, 'dist/config.schema.json')
  const modeline = existsSync(schema) ? `# yaml-language-server: $schema=${schema}\n` : ''
  return `${modeline}# fail2ban-perimeter, made once by f2b-setup server and yours from then on.
# Every key is explained in ${join(source, 'config.yaml')}
${stringify({ owner, firewalls })}`
}

/** The known_hosts that is wanted. A firewall that is in it already is not asked again. */
async function hostKeys(
  target: InstallTarget,
  remote: Firewall[],
  given?: string,
): Promise<string> {
  let text = textOf(target.at(KNOWN_HOSTS)) ?? ''
  const unknown = remote.filter(({ host }) => given !== undefined || !knowsHost(text, host))
  if (given === undefined && !target.dryRun) unknown.forEach(checkTerminal)
  for (const firewall of unknown) {
    if (given !== undefined) {
      const keys = await readHostKeys(given, firewall, unknown.length === 1)
      text = withHostKeys(text, firewall.host, keys)
    } else if (target.dryRun) {
      say(`would fetch the host key of ${firewall.host} with ssh-keyscan and ask if it is right`)
    } else {
      text = withHostKeys(text, firewall.host, await fetchHostKeys(firewall))
    }
  }
  return text
}

/** Says what an operator must change in a configuration that is there. */
function adviseConfig(path: string, wish: Wish, found: Settings): void {
  const known = hostsOf(found)
  const missing = wish.firewalls.filter((firewall) => !known.includes(firewall.host))
  if (found.owner !== wish.owner) {
    say(`note: ${path} was left as it is, but its owner is not "${wish.owner}": set it`)
  }
  if (missing.length === 0) return
  say(`note: ${path} was left as it is; add to it:`)
  say(stringify({ firewalls: missing }).trimEnd().replace(/^/gm, '  '))
}

/** Says what is to be done next. */
function advise(target: InstallTarget, { owner }: Wish, remote: Firewall[]): void {
  const key = textOf(target.at(`${KEY}.pub`))?.trim() ?? `(the public key in ${KEY}.pub)`
  if (remote.length > 0) {
    say(`\nNow let this server in, as root on ${remote.map((f) => f.host).join(' and on ')}:`)
    say(`  echo '${key}' > ${owner}.pub`)
    say(`  f2b-setup firewall --owner ${owner} --key-file ${owner}.pub`)
    say(
      "There, --from ADDRESS ties the key to this server's address; without it that stays as it is.",
    )
  } else {
    say('\nNow let this machine be the firewall:')
    say('  f2b-setup firewall')
  }
  say('\nThen test it from here; all of these print nothing when all is well:')
  for (const firewall of remote) say(`  ${sshLine(firewall)} true`)
  say('  f2b-firewall check')
  // At the margin: below another line of jail.local, an indented one goes on with that.
  say(`\nThen let Fail2Ban use it, in /etc/fail2ban/jail.local, and run ${restartCommand()}:`)
  say('[DEFAULT]')
  say('banaction = iptables-remote')
  say('banaction_allports = iptables-remote-allports')
}

function sshLine({ host, user, port }: Firewall): string {
  const where = `-i ${KEY} -o UserKnownHostsFile=${KNOWN_HOSTS} -o HostKeyAlias=${host}`
  return `ssh ${where}${port ? ` -p ${port}` : ''} ${user}@${host}`
}
