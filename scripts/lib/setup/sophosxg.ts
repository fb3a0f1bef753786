import { existsSync, readdirSync } from 'node:fs'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import * as v from 'valibot'
import { parseDocument, stringify } from 'yaml'
import { type Options, textOption, usageFailure, type Values } from '../command.ts'
import { codeOf, EXIT, Failure, messageOf } from '../failure.ts'
import { checkOwner, quote } from '../lease.ts'
import { type SophosXg, sophosxg } from '../settings/sophosxg.ts'
import { withClient } from '../sophosxg/client.ts'
import { sophosTarget } from '../sophosxg/target.ts'
import type { Call } from '../target.ts'
import { makeCall } from '../verbs.ts'
import { fetchCertificate, type Shown } from './certificate.ts'
import { realignDelivery } from './delivery.ts'
import { actionFiles, restartCommand } from './fail2ban.ts'
import { refuseIfUsed } from './in-use.ts'
import { ask, CONFIG, CONFIG_DIR, type InstallTarget, install, type Resource, say } from './plan.ts'
import { file, folder, textOf } from './things.ts'
import { configEdit, secretFile, withSection } from './yaml.ts'

/** The options that only `f2b-setup sophosxg` has. */
export const SOPHOSXG_OPTIONS: Options = {
  address: { type: 'string' },
  user: { type: 'string' },
  'pass-file': { type: 'string' },
  pin: { type: 'string' },
  ca: { type: 'string' },
  title: { type: 'string' },
  owner: { type: 'string' },
  'iphost-prefix': { type: 'string' },
  'iphostgroup-name': { type: 'string' },
  mode: { type: 'string' },
}

/** What `--help` says about them. */
export const SOPHOSXG_HELP = `f2b-setup sophosxg
  --address HOST[:PORT] the firewall's web admin; port 4444 if left out
  --user NAME          the API account; asked for if left out
  --pass-file FILE     a file that holds its password; asked for if left out
  --pin FINGERPRINT    the SHA-256 fingerprint that the certificate must have;
                       without it, and without --ca, it is shown and you are
                       asked whether it is the right one
  --ca FILE            the certificate of the authority that signed the
                       firewall's
  --title NAME         what messages call the firewall; default its address
  --owner NAME         this server's name, if there is no config.yaml yet;
                       default its host name
  --iphost-prefix TEXT, --iphostgroup-name NAME
                       for the objects on the firewall; default f2b_ and
                       f2b_blockings
  --mode MODE          hosts (an object for each ban) | iplist (lists of 1,000)`

const ACTIONS = ['sophosxg']

/** An entry of section `sophosxg` and the files that it names. */
interface Wish {
  entry: Record<string, unknown>
  settings: SophosXg
  pass: string
  passFile: string
  ca: { from: string; path: string; text: string } | undefined
}

/**
 * `f2b-setup sophosxg`: finds out whether address, certificate, account and API work, makes the
 * groups, and writes the section that uses them.
 */
export async function setupSophosxg(target: InstallTarget, values: Values): Promise<void> {
  if (target.uninstall) {
    await refuseIfUsed(target, ACTIONS, actionFiles(target, ACTIONS))
    await install(uninstalled(target, values), target)
    return realignDelivery(target)
  }
  const wish = await readWish(target, values)
  await tryOut(target, wish)
  await install(partsOf(target, wish, values), target)
  await realignDelivery(target)
  advise(wish.settings)
}

async function readWish(target: InstallTarget, values: Values): Promise<Wish> {
  const url = await readUrl(values)
  const title = textOption(values, 'title') ?? new URL(url).hostname.replace(/^\[|\]$/g, '')
  const { ca, pin } = await readTrust(target, url, title, values)
  const user = textOption(values, 'user') ?? (await ask('API account: ', '--user'))
  const pass = await readPass(values)
  const passFile = `${CONFIG_DIR}/sophosxg-${title}.pass`
  const entry = {
    ...(textOption(values, 'title') !== undefined && { name: title }),
    url,
    ...(ca && { ca: ca.path }),
    ...(pin !== undefined && { pin }),
    user,
    pass_file: passFile,
    iphost_prefix: textOption(values, 'iphost-prefix') ?? 'f2b_',
    iphostgroup_name: textOption(values, 'iphostgroup-name') ?? 'f2b_blockings',
    ...(textOption(values, 'mode') !== undefined && { mode: textOption(values, 'mode') }),
  }
  const result = v.safeParse(sophosxg, { ...entry, pass })
  const [settings] = result.success ? result.output : []
  if (!settings) throw new Failure(EXIT.input, `Cannot use this: ${deepest(result.issues)}`)
  return { entry, settings, pass, passFile, ca }
}

async function readUrl(values: Values): Promise<string> {
  const given = textOption(values, 'address') ?? (await ask('Firewall address: ', '--address'))
  const [, host = '', port = '4444'] =
    /^(\[[^\]]+\]|[^:]+|[^[]*:[^[]*:[^[]*?)(?::(\d{1,5}))?$/.exec(given) ?? []
  const url = `https://${host.includes(':') && !host.startsWith('[') ? `[${host}]` : host}:${port}/webconsole/APIController`
  if (host === '' || !URL.canParse(url)) {
    throw new Failure(EXIT.input, `Cannot read --address ${quote(given)}: HOST or HOST:PORT`)
  }
  return url
}

/** How the firewall is recognised from now on: as this machine does, by its authority, or by itself. */
async function readTrust(target: InstallTarget, url: string, title: string, values: Values) {
  const [caFile, pin] = [textOption(values, 'ca'), textOption(values, 'pin')]
  if (caFile !== undefined && pin !== undefined) throw usageFailure('--ca or --pin, not both')
  const text = caFile === undefined ? undefined : textOf(caFile)
  if (caFile !== undefined && text === undefined) {
    throw new Failure(EXIT.input, `Cannot find ${quote(caFile)}`)
  }
  const shown = await fetchCertificate(url, text === undefined ? undefined : Buffer.from(text))
  show(shown)
  if (caFile !== undefined && text !== undefined) {
    return {
      ca: { from: resolve(caFile), path: `${CONFIG_DIR}/sophosxg-${title}.pem`, text },
      pin: undefined,
    }
  }
  if (pin === undefined && shown.trusted) return { ca: undefined, pin: undefined }
  return { ca: undefined, pin: await confirm(shown, pin, target) }
}

function show(shown: Shown): void {
  say(`certificate of ${shown.subject}, issued by ${shown.issuer}, valid until ${shown.validTo}`)
  say(`  SHA-256 ${shown.fingerprint}${shown.trusted ? ' (trusted)' : ''}`)
}

/** @returns the fingerprint, once a person has said that it is the right one */
async function confirm(
  shown: Shown,
  pin: string | undefined,
  target: InstallTarget,
): Promise<string> {
  const bare = (text: string): string => text.replaceAll(':', '').toUpperCase()
  if (pin !== undefined) {
    if (bare(pin) === bare(shown.fingerprint)) return shown.fingerprint
    throw new Failure(EXIT.refused, 'Nothing was changed: the certificate is not the one of --pin')
  }
  if (target.dryRun) return shown.fingerprint
  const question = 'Is this what the firewall shows under Certificates > Certificates? [yes/no] '
  if ((await ask(question, '--pin or --ca')).trim() === 'yes') return shown.fingerprint
  throw new Failure(EXIT.refused, 'Nothing was changed: the certificate was not confirmed')
}

async function readPass(values: Values): Promise<string> {
  const given = textOption(values, 'pass-file')
  if (given === undefined) return await ask('Its password: ', '--pass-file', true)
  const text = textOf(given)
  if (text === undefined) throw new Failure(EXIT.input, `Cannot find ${quote(given)}`)
  return text.replace(/\r?\n$/, '')
}

/** Logs in and makes the groups, before anything is written here. */
async function tryOut(target: InstallTarget, wish: Wish): Promise<void> {
  const config = { owner: 'setup', state_dir: '/nonexistent' } as Call['config']
  const call = makeCall({ config, path: '', warnings: [] }, { 'dry-run': target.dryRun }, 30)
  // What will be its place is not filled yet.
  const settings = { ...wish.settings, ...(wish.ca && { ca: wish.ca.from }) }
  try {
    await withClient(settings, call, (client) => client.login())
    say(`logged in to ${settings.name} as ${settings.user}`)
    await sophosTarget(settings).start(call)
  } catch (error) {
    const text = `Nothing was changed: cannot use ${quote(settings.name)}: ${messageOf(error)}`
    throw new Failure(codeOf(error), text)
  }
  const groups = [settings.iphostgroup_name, settings.iphostgroup_name_v6].map(quote).join(' and ')
  if (!target.dryRun) say(`the host groups ${groups} are there`)
}

function partsOf(target: InstallTarget, wish: Wish, values: Values): Resource[] {
  const { ca } = wish
  return [
    folder(target.at(CONFIG_DIR)),
    secretFile(target, wish.passFile, `${wish.pass}\n`),
    ...(ca ? [file(target.at(ca.path), ca.text, 0o644, { kept: true })] : []),
    section(target, wish, values),
    ...actionFiles(target, ACTIONS),
  ]
}

function uninstalled(target: InstallTarget, values: Values): Resource[] {
  const title = textOption(values, 'title') ?? textOption(values, 'address')?.split(':')[0]
  const folder = target.at(CONFIG_DIR)
  const names = existsSync(folder) ? readdirSync(folder) : []
  const secrets = names.filter((name) =>
    title ? name === `sophosxg-${title}.pass` : /^sophosxg-.*\.(pass|pem)$/.test(name),
  )
  return [
    ...(title ? [] : [configEdit(target, 'sophosxg', '')]),
    ...secrets.map((name) => file(join(folder, name), '', 0o600, { kept: true })),
    ...actionFiles(target, ACTIONS),
  ]
}

/**
 * The entry in config.yaml. What others wrote there stays as it is, remarks included; of an
 * entry for the same firewall only a renewed certificate is changed.
 */
function section(target: InstallTarget, wish: Wish, values: Values): Resource {
  const text = textOf(target.at(CONFIG)) ?? ''
  const known = (parseDocument(text).toJS() as { sophosxg?: unknown } | null)?.sophosxg
  const entries = (known === undefined ? [] : [known].flat()) as Record<string, unknown>[]
  const at = entries.findIndex((one) => one.url === wish.entry.url)
  const trusted = entries[at]?.pin === wish.entry.pin && entries[at]?.ca === wish.entry.ca
  const where = Array.isArray(known) ? ['sophosxg', at] : ['sophosxg']
  const made = at < 0 ? withEntry(text, entries, wish, values) : withTrust(text, where, wish.entry)
  return {
    ...configEdit(target, 'sophosxg', trusted ? text : made),
    state: () => (at < 0 ? 'absent' : trusted ? 'same' : 'different'),
  }
}

function withEntry(text: string, entries: unknown[], wish: Wish, values: Values): string {
  const owner = checkOwner(textOption(values, 'owner') ?? hostname().split('.')[0] ?? '')
  const start = text === '' ? `# fail2ban-perimeter\n${stringify({ owner })}` : text
  if (entries.length === 0) return withSection(start, { sophosxg: wish.entry })
  const document = parseDocument(start)
  document.set('sophosxg', document.createNode([...entries, wish.entry]))
  return document.toString()
}

function withTrust(text: string, where: (string | number)[], entry: Wish['entry']): string {
  const document = parseDocument(text)
  for (const key of ['pin', 'ca']) {
    if (entry[key] === undefined) document.deleteIn([...where, key])
    else document.setIn([...where, key], entry[key])
  }
  return document.toString()
}

/** The innermost complaint of the schema. */
function deepest(issues: readonly v.BaseIssue<unknown>[] | undefined): string {
  const issue = issues?.[0]
  const inner = issue?.issues?.filter((one) => one.path?.[0].type === 'object')
  if (inner?.length) return deepest(inner)
  const key = issue?.path?.map((item) => String(item.key)).join('.') ?? ''
  return `${key} ${issue?.message ?? ''}`.trim()
}

function advise(settings: SophosXg): void {
  say(`
Two things are left to do in the web console of ${settings.name}:
  1. Rules and policies > Firewall rules: a rule at the very top, action Drop, source zone WAN,
     source networks "${settings.iphostgroup_name}", everything else Any; and the same for IPv6
     with "${settings.iphostgroup_name_v6}".
  2. Backup & firmware > API (SFOS 22: Administration): leave no more addresses allowed than this
     server's; Profiles > Device access: no more than Objects and Network Read-write for
     "${settings.user}".

Then test it; the first prints nothing when all is well:
  f2b-sophosxg check
  f2b-sophosxg ban --ip 192.0.2.7 --bantime 60 && f2b-sophosxg list && f2b-sophosxg flush --name -

Then let Fail2Ban use it, in /etc/fail2ban/jail.local, and run ${restartCommand()}:
[DEFAULT]
banaction = sophosxg
banaction_allports = sophosxg`)
}
