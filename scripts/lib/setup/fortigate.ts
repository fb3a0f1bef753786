import { randomBytes } from 'node:crypto'
import { chmodSync, chownSync, existsSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createSecureContext } from 'node:tls'
import { isMap, parseDocument, stringify } from 'yaml'
import { type Options, textOption, usageFailure, type Values } from '../command.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { quote } from '../lease.ts'
import { run } from '../run.ts'
import { call } from './account.ts'
import { apply, type Item, say } from './changes.ts'
import { configItem, configText } from './config-file.ts'
import { restartCommand } from './fail2ban.ts'
import { fortiosCli } from './fortigate-cli.ts'
import { feedUnit, logrotate, renewalUnits } from './fortigate-unit.ts'
import { refuseIfUsed } from './in-use.ts'
import { file, fileOnce, folder, sharedFolder, textOf, writeAs } from './items.ts'
import { CONFIG_DIR, fromPackage, type Place } from './place.ts'
import { realignDelivery } from './realign.ts'
import { withNested } from './settings.ts'
import { hasSystemd } from './units.ts'

/** The account of the web server: it owns the log of failed logins and nothing else. */
const ACCOUNT = 'fail2ban-feed'
const STATE_DIR = '/var/lib/fail2ban-perimeter'
const LIST = `${STATE_DIR}/blocked_ips_list.txt`
const LOG = `${STATE_DIR}/failed_logins.log`
const CONFIG = `${CONFIG_DIR}/config.yaml`
const PASS = `${CONFIG_DIR}/fortigate-feed.pass`
const TOKEN = `${CONFIG_DIR}/fortigate-webhook.token`
const PROGRAM = '/usr/local/lib/fail2ban-perimeter/fortigate-feed.cjs'
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
  --url URL            how the FortiGate reaches this server: https://192.0.2.10:5000
  --listen ADDR:PORT   where to listen; default: all addresses and the port of --url. Behind a
                       proxy on this machine: 127.0.0.1:PORT, and no certificate
  --cert-file FILE     certificate for an https --url
  --key-file FILE      its key
  --systemd WHEN       auto | yes | no`

/** `f2b-setup fortigate`: the web server beside Fail2Ban, and what to paste on the device. */
export async function setUpFortigate(place: Place, values: Values): Promise<void> {
  if (place.uninstall) {
    await refuseIfUsed(place, ['fortigate', 'add-to-list'])
    await apply(items(place, '', true), place)
    return realignDelivery(place)
  }
  const url = readUrl(textOption(values, 'url'))
  const wanted = withSection(configText(place), sectionOf(place, url, values), place.at(CONFIG))
  await apply(items(place, wanted, hasSystemd(textOption(values, 'systemd') ?? 'auto')), place)
  await realignDelivery(place)
  if (place.prefix) say(`note: on the machine itself: ${USERADD} and chown ${ACCOUNT} ${LOG}`)
  advise(place, url)
}

const USERADD = `useradd --system --no-create-home --shell /usr/sbin/nologin ${ACCOUNT}`

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
function sectionOf(place: Place, url: URL, values: Values) {
  const cert = textOption(values, 'cert-file')
  const key = textOption(values, 'key-file')
  // What only this machine reaches has a proxy in front of it, which has the certificate.
  const local = /^(127\.|\[::1\])/.test(textOption(values, 'listen') ?? '')
  if (url.protocol === 'https:' && !(cert && key) && !local) {
    throw usageFailure('An https --url needs --cert-file and --key-file, or a proxy and --listen')
  }
  const tls = cert && key ? readPair(place, cert, key) : {}
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
function readPair(place: Place, cert: string, key: string) {
  const pair = { cert_file: resolve(cert), key_file: resolve(key) }
  if (place.prefix) return pair
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
function withSection(
  text: string | undefined,
  section: ReturnType<typeof sectionOf>,
  path: string,
): string {
  const document = parseDocument(text ?? '')
  const [error] = document.errors
  if (error)
    throw new Failure(EXIT.config, `Cannot read "${path}": ${error.message.split('\n')[0]}`)
  if (isMap(document.contents) && document.contents.has('fortigate')) {
    const { cert_file, key_file } = section.feed as { cert_file?: string; key_file?: string }
    return Object.entries({ cert_file, key_file }).reduce(
      (made, [name, value]) =>
        value === undefined ? made : withNested(made, ['fortigate', 'feed', name], value),
      text ?? '',
    )
  }
  const head = text === undefined ? '' : `${text.replace(/\n*$/, '\n')}\n`
  return head + stringify({ fortigate: section })
}

function items(place: Place, config: string, systemd: boolean): Item[] {
  const unit = file(
    place.at(`/etc/systemd/system/${UNIT}`),
    feedUnit(PROGRAM, credentials(config)),
    0o644,
  )
  const pair = certificateOf(config)
  const texts = renewalUnits(UNIT, pair)
  const renewal = (['path', 'service'] as const).map((kind) => {
    const item = file(place.at(`/etc/systemd/system/${RENEWAL}.${kind}`), texts[kind], 0o644)
    return { ...item, unwanted: !systemd || pair.length === 0 }
  })
  const live = place.prefix === ''
  const watcher = service(`${RENEWAL}.path`, renewal)
  const watching = live && systemd && existsSync('/run/systemd/system')
  const watch = [...renewal, ...(watching ? [{ ...watcher, unwanted: pair.length === 0 }] : [])]
  if (!place.uninstall && pair.length === 0) watch.reverse() // it ends before its file goes
  return [
    folder(place.at(CONFIG_DIR)),
    configItem(place, 'fortigate', config),
    secret(place.at(PASS)),
    secret(place.at(TOKEN)),
    listFolder(place.at(STATE_DIR)),
    fileOnce(place.at(LIST), () => writeAs(place.at(LIST), '', 0o644)),
    ...(live ? [account()] : []),
    log(place),
    file(place.at('/etc/logrotate.d/fail2ban-perimeter-feed'), logrotate(LOG, ACCOUNT), 0o644),
    folder(place.at('/usr/local/lib/fail2ban-perimeter')),
    file(
      place.at(PROGRAM),
      place.uninstall ? '' : fromPackage(place, 'dist/fortigate-feed.cjs'),
      0o755,
    ),
    { ...unit, unwanted: !systemd },
    ...(watching ? [service(UNIT, [unit])] : []),
    ...watch,
  ]
}

/** Files that the service is handed by systemd, since it may read none of them itself. */
function credentials(config: string): string[] {
  return [PASS, TOKEN, ...certificateOf(config)]
}

function certificateOf(config: string): string[] {
  const { feed = {} } = parseDocument(config).toJS()?.fortigate ?? {}
  return [feed.cert_file, feed.key_file].filter((path) => path !== undefined)
}

/** f2b-setup firewall makes the folder root's alone; the web server must get to its list in there. */
function listFolder(path: string): Item {
  const shared = sharedFolder(path)
  const mode = (): number => statSync(path, { throwIfNoEntry: false })?.mode ?? 0o011
  return {
    ...shared,
    look: () => (mode() & 0o001 ? shared.look() : 'different'),
    make: () => (mode() & 0o001 ? shared.make() : chmodSync(path, (mode() & 0o777) | 0o011)),
  }
}

function secret(path: string): Item {
  return fileOnce(path, () => writeAs(path, `${randomBytes(24).toString('base64url')}\n`, 0o600))
}

/** Made once; on this machine it belongs to the web server. */
function log(place: Place): Item {
  const path = place.at(LOG)
  return {
    ...fileOnce(path, async () => {
      writeAs(path, '', 0o640)
      if (place.prefix) return
      const { stdout } = await run('id', ['-u', ACCOUNT])
      chownSync(path, Number(stdout), statSync(path).gid)
    }),
  }
}

function account(): Item {
  return {
    name: `user ${ACCOUNT}`,
    look: async () => ((await run('getent', ['passwd', ACCOUNT])).code === 0 ? 'same' : 'absent'),
    make: () => call('useradd', USERADD.split(' ').slice(1)),
    remove: () => call('userdel', [ACCOUNT]),
  }
}

function service(name: string, units: Item[]): Item {
  return {
    name: `systemd unit ${name}`,
    async look() {
      const states = await Promise.all(units.map((unit) => unit.look()))
      if (states.includes('absent')) return 'absent'
      const { code } = await run('systemctl', ['is-active', '--quiet', name])
      return code === 0 && states.every((state) => state === 'same') ? 'same' : 'different'
    },
    async make() {
      await call('systemctl', ['daemon-reload'])
      await call('systemctl', ['enable', name])
      await call('systemctl', ['restart', name])
    },
    remove: () => call('systemctl', ['disable', '--now', name]),
  }
}

function advise(place: Place, url: URL): void {
  const read = (path: string) => textOf(place.at(path))?.trim() ?? `(the content of ${path})`
  const side = { url, header: HEADER, token: read(TOKEN), user: USER, pass: read(PASS) }
  say('\nPaste on the FortiGate (it holds the two secrets: do not mail it):\n')
  say(fortiosCli(side))
  say(`
Then let Fail2Ban ban, in /etc/fail2ban/jail.local, and run ${restartCommand()}:
${jails(place)}`)
}

/**
 * The jails as the head of action.d/fortigate.conf has them, at the margin: below another line of
 * jail.local, an indented one goes on with that.
 */
function jails(place: Place): string {
  const text = textOf(join(place.source, 'action.d/fortigate.conf')) ?? ''
  const head = text.split('[Definition]')[0] ?? ''
  return head
    .split('\n')
    .filter((line) => /^# {3}|^#$/.test(line))
    .map((line) => line.replace(/^# */, ''))
    .join('\n')
    .replace(/\n{2,}/g, '\n\n')
    .trim()
}
