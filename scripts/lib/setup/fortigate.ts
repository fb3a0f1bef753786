import { randomBytes } from 'node:crypto'
import { chmodSync, chownSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createSecureContext } from 'node:tls'
import { type Options, textOption, usageFailure, type Values } from '../command.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { quote } from '../lease.ts'
import { realignDelivery } from './delivery.ts'
import { restartCommand } from './fail2ban.ts'
import { fortiosCli } from './fortigate-cli.ts'
import { refuseIfUsed } from './in-use.ts'
import {
  CONFIG,
  CONFIG_DIR,
  hasSystemd,
  type InstallTarget,
  install,
  LIB,
  type Resource,
  STATE_DIR,
  say,
} from './plan.ts'
import {
  account,
  accountEntry,
  accountOptions,
  credentials,
  file,
  fileOnce,
  folder,
  fromPackage,
  rendered,
  services,
  sharedFolder,
  textOf,
  type UnitValues,
  unit,
  unitPath,
  wantedIf,
  writeAs,
} from './things.ts'
import { nodeInUnit } from './trust.ts'
import { configEdit, parsed, withSection, withValue } from './yaml.ts'

/** The account of the web server: it owns the log of failed logins and nothing else. */
const ACCOUNT = { name: 'fail2ban-feed' }
const LIST = `${STATE_DIR}/blocked_ips_list.txt`
const LOG = `${STATE_DIR}/failed_logins.log`
const PASS = `${CONFIG_DIR}/fortigate-feed.pass`
const TOKEN = `${CONFIG_DIR}/fortigate-webhook.token`
const UNIT = 'f2b-fortigate-feed.service'
const RENEWAL = 'f2b-fortigate-feed-renew'
const USER = 'fortigate'
const HEADER = 'X-Webhook-Token'

/** The options that only `f2b-setup fortigate` has. */
export const FORTIGATE_OPTIONS: Options = {
  url: { type: 'string' },
  listen: { type: 'string' },
  'cert-file': { type: 'string' },
  'key-file': { type: 'string' },
  systemd: { type: 'string' },
}

export const FORTIGATE_HELP = `f2b-setup fortigate
  --url URL            how the FortiGate reaches this server:
                       https://192.0.2.10:5000
  --listen ADDR:PORT   where to listen; default: all addresses and the port of
                       --url. Behind a proxy on this machine: 127.0.0.1:PORT,
                       and no certificate
  --cert-file FILE     certificate for an https --url
  --key-file FILE      its key
  --systemd WHEN       auto | yes | no`

/** `f2b-setup fortigate`: the web server beside Fail2Ban, and what to paste on the device. */
export async function setUpFortigate(target: InstallTarget, values: Values): Promise<void> {
  if (target.uninstall) {
    await refuseIfUsed(target, ['fortigate', 'add-to-list'])
    await install(partsOf(target, '', true), target)
    return realignDelivery(target)
  }
  const url = readUrl(textOption(values, 'url'))
  const wanted = withFeed(target, sectionOf(target, url, values))
  await install(partsOf(target, wanted, hasSystemd(values)), target)
  await realignDelivery(target)
  if (target.prefix) {
    const make = `useradd --system --no-create-home ${accountOptions(ACCOUNT).join(' ')}`
    say(`note: on the machine itself: ${make} ${ACCOUNT.name} and chown ${ACCOUNT.name} ${LOG}`)
  }
  advise(target, url)
}

function readUrl(text: string | undefined): URL {
  if (text === undefined) throw usageFailure('Missing option --url')
  const url = URL.canParse(text) ? new URL(text) : undefined
  const plain = url && /^https?:$/.test(url.protocol) && !url.search && !url.hash && !url.username
  if (url && plain) return url
  throw new Failure(
    EXIT.input,
    `Cannot read --url ${quote(text)}: https://ADDRESS:PORT, and a proxy's path`,
  )
}

/** Section `fortigate` of config.yaml. */
function sectionOf(target: InstallTarget, url: URL, values: Values) {
  const cert = textOption(values, 'cert-file')
  const key = textOption(values, 'key-file')
  // What only this machine reaches has a proxy in front of it, which has the certificate.
  const local = /^(127\.|\[::1\])/.test(textOption(values, 'listen') ?? '')
  if (url.protocol === 'https:' && !(cert && key) && !local) {
    throw usageFailure('An https --url needs --cert-file and --key-file, or a proxy and --listen')
  }
  const tls = cert && key ? readPair(target, cert, key) : {}
  const proxies =
    local && url.protocol === 'https:' && !cert ? { proxies: ['127.0.0.1', '::1'] } : {}
  const port = url.port || (url.protocol === 'https:' ? '443' : '80')
  const listen = textOption(values, 'listen') ?? `0.0.0.0:${port}`
  return {
    list_file: LIST,
    feed: { listen, user: USER, pass_file: PASS, ...proxies, ...tls },
    webhook: { header: HEADER, secret_file: TOKEN, log_file: LOG },
  }
}

/**
 * Where certificate and key are, seen from anywhere; they must be there and belong together.
 *
 * @throws Failure 65
 */
function readPair(target: InstallTarget, cert: string, key: string) {
  const pair = { cert_file: resolve(cert), key_file: resolve(key) }
  if (target.prefix) return pair
  const [certText, keyText] = [cert, key].map((path) => {
    const text = textOf(path)
    if (text === undefined)
      throw new Failure(EXIT.input, `Cannot read ${quote(path)}: no such file`)
    return text
  })
  try {
    createSecureContext({ cert: certText, key: keyText })
    return pair
  } catch (error) {
    const why = messageOf(error).replace(/^error:[^:]*:[^:]*::/, '')
    throw new Failure(EXIT.input, `Cannot use ${quote(cert)} with the key ${quote(key)}: ${why}`)
  }
}

/**
 * The configuration with the section at its end. In one that has it already only the certificate and
 * its key are changed, if they are given.
 */
function withFeed(target: InstallTarget, section: ReturnType<typeof sectionOf>): string {
  const path = target.at(CONFIG)
  const text = textOf(path) ?? ''
  if (!parsed(text, path).has('fortigate')) return withSection(text, { fortigate: section })
  const { cert_file, key_file } = section.feed as { cert_file?: string; key_file?: string }
  return Object.entries({ cert_file, key_file }).reduce(
    (made, [name, value]) =>
      value === undefined ? made : withValue(made, ['fortigate', 'feed', name], value, path),
    text,
  )
}

function partsOf(target: InstallTarget, config: string, systemd: boolean): Resource[] {
  const pair = certificateOf(config, target)
  const one = (name: string, values: UnitValues) =>
    unit(target, name, rendered(target, `scripts/units/${name}`, values))
  const handed = credentials([CONFIG, PASS, TOKEN, ...pair])
  const feed = one(UNIT, { NODE: nodeInUnit(), CREDENTIAL: handed })
  const renewal = [
    one(`${RENEWAL}.path`, { CERTIFICATE: pair.map(unitPath) }),
    one(`${RENEWAL}.service`, {}),
  ]
  const watch = [...renewal, ...services(target, [`${RENEWAL}.path`], renewal)]
  const rotation = 'fail2ban-perimeter-feed'
  const program = target.uninstall ? '' : fromPackage(target, 'dist/fortigate-feed.cjs')
  return [
    folder(target.at(CONFIG_DIR)),
    configEdit(target, 'fortigate', config),
    secret(target.at(PASS)),
    secret(target.at(TOKEN)),
    listFolder(target.at(STATE_DIR)),
    fileOnce(target.at(LIST), () => writeAs(target.at(LIST), '', 0o644)),
    ...(target.prefix ? [] : [account(ACCOUNT)]),
    log(target),
    file(
      target.at(`/etc/logrotate.d/${rotation}`),
      fromPackage(target, `scripts/units/${rotation}.logrotate`),
    ),
    folder(target.at(LIB)),
    file(target.at(`${LIB}/fortigate-feed.cjs`), program, 0o755),
    ...wantedIf(systemd, [feed, ...services(target, [UNIT], [feed])]),
    ...wantedIf(systemd && (pair.length > 0 || target.uninstall), watch),
  ]
}

function certificateOf(config: string, target: InstallTarget): string[] {
  const { feed = {} } = parsed(config, target.at(CONFIG)).toJS()?.fortigate ?? {}
  return [feed.cert_file, feed.key_file].filter((path) => path !== undefined)
}

/** f2b-setup firewall makes the folder root's alone; the web server must get to its list in there. */
function listFolder(path: string): Resource {
  const shared = sharedFolder(path)
  const mode = (): number => statSync(path, { throwIfNoEntry: false })?.mode ?? 0o011
  return {
    ...shared,
    state: () => (mode() & 0o001 ? shared.state() : 'different'),
    apply: () => (mode() & 0o001 ? shared.apply?.() : chmodSync(path, (mode() & 0o777) | 0o011)),
  }
}

function secret(path: string): Resource {
  return fileOnce(path, () => writeAs(path, `${randomBytes(24).toString('base64url')}\n`, 0o600))
}

/** Made once; on this machine it belongs to the web server. */
function log(target: InstallTarget): Resource {
  const path = target.at(LOG)
  return fileOnce(path, async () => {
    writeAs(path, '', 0o640)
    if (target.prefix) return
    const uid = (await accountEntry(ACCOUNT.name))?.uid ?? 0
    chownSync(path, uid, statSync(path).gid)
  })
}

function advise(target: InstallTarget, url: URL): void {
  const read = (path: string) => textOf(target.at(path))?.trim() ?? `(the content of ${path})`
  const side = { url, header: HEADER, token: read(TOKEN), user: USER, pass: read(PASS) }
  say('\nPaste on the FortiGate (it holds the two secrets: do not mail it):\n')
  say(fortiosCli(side))
  say(`
Then let Fail2Ban ban, in /etc/fail2ban/jail.local, and run ${restartCommand()}:
${jails(target)}`)
}

/**
 * The jails as the head of action.d/fortigate.conf has them, at the margin: below another line of
 * jail.local, an indented one goes on with that.
 */
function jails(target: InstallTarget): string {
  const text = textOf(join(target.source, 'action.d/fortigate.conf')) ?? ''
  const head = text.split('[Definition]')[0] ?? ''
  return head
    .split('\n')
    .filter((line) => /^# {3}|^#$/.test(line))
    .map((line) => line.replace(/^# */, ''))
    .join('\n')
    .replace(/\n{2,}/g, '\n\n')
    .trim()
}
