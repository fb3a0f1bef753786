import { existsSync, readdirSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import * as v from 'valibot'
import { parseDocument, stringify } from 'yaml'
import { type Options, textOption, type Values } from '../command.ts'
import { codeOf, EXIT, Failure, messageOf } from '../failure.ts'
import { checkOwner, quote } from '../lease.ts'
import { hostOf } from '../settings/common.ts'
import { type Call, LostGeneration, type Target } from '../target.ts'
import { makeCall } from '../verbs.ts'
import { readTrust } from './certificate.ts'
import { realignDelivery } from './delivery.ts'
import { actionFiles, restartCommand } from './fail2ban.ts'
import { refuseIfUsed } from './in-use.ts'
import { ask, CONFIG, CONFIG_DIR, type InstallTarget, install, type Resource, say } from './plan.ts'
import { file, folder, textOf } from './things.ts'
import { configEdit, readSettings, secretFile, withSection } from './yaml.ts'

/** What the settings of every kind have. */
interface Settings {
  name: string
  ca?: string | undefined
}

/** A kind of appliance: what `f2b-setup` must know of it beside what all have in common. */
export interface Kind<S extends Settings> {
  /** Its word, its section of config.yaml and, after `f2b-`, its command. */
  name: 'sophosxg' | 'mikrotik' | 'opnsense'
  /** What Fail2Ban calls. */
  action: string
  schema: v.GenericSchema<unknown, S[]>
  port: string
  /** What follows address and port in its url. */
  path: string
  /** Where its fingerprint can be seen: completes "Is this what ...". */
  seen: string
  /** The key of its secret, which is written to a file that `<key>_file` names. */
  secret: 'pass' | 'key'
  /** What a person must have done on it before anything works; only said of a new one. */
  before?(url: string, values: Values): Promise<string>
  /** Reads who we are there, and asks for what was not given. */
  login(values: Values): Promise<{ user?: string; secret: string }>
  /** The other keys of its entry: as given, else as its known entry has them. */
  keys(values: Values, known: Entry): Entry
  /**
   * Logs in, finds out what we may do there and makes what we may.
   *
   * @returns what is left for a person to do on it
   * @throws Failure
   */
  tryOut(settings: S, trial: Trial): Promise<string>
}

type Entry = Record<string, unknown>

/** The one time that setup itself uses an appliance. */
export interface Trial {
  /** As this server. */
  call: Call
  /** Its entry is not in config.yaml yet. */
  isNew: boolean
}

/** The options that every kind has. */
export const APPLIANCE_OPTIONS: Options = {
  address: { type: 'string' },
  pin: { type: 'string' },
  ca: { type: 'string' },
  title: { type: 'string' },
  owner: { type: 'string' },
}

/** What `--help` says about the options after address and login. */
export function applianceHelp(device: string): string {
  return `  --pin FINGERPRINT    the SHA-256 fingerprint that the certificate must have;
                       without it, and without --ca, it is shown and you are
                       asked whether it is the right one
  --ca FILE            the certificate of the authority that signed the
                       ${device}'s
  --title NAME         what messages call the ${device}; default its address
  --owner NAME         this server's name, if there is no config.yaml yet;
                       default its host name`
}

/** An entry of a section and the files that it names. */
interface Wish<S> {
  entry: Entry
  settings: S
  secret: string
  secretPath: string
  ca: { from: string; path: string; text: string } | undefined
  owner: string
  /** What config.yaml has of this kind, and where among it this very appliance is; else -1. */
  entries: Entry[]
  at: number
}

/**
 * Finds out whether address, certificate, login and rights suffice, makes what is missing there, and
 * writes the section that uses it.
 */
export async function setUpAppliance<S extends Settings>(
  kind: Kind<S>,
  target: InstallTarget,
  values: Values,
): Promise<void> {
  if (target.uninstall) {
    const actions = actionFiles(target, [kind.action])
    await refuseIfUsed(target, [kind.action], actions)
    await install([...uninstalled(kind, target, values), ...actions], target)
    return realignDelivery(target)
  }
  const wish = await readWish(kind, target, values)
  const left = await tryOut(kind, target, wish)
  const parts = partsOf(kind, target, wish)
  await install([...parts, ...actionFiles(target, [kind.action])], target)
  await realignDelivery(target)
  advise(kind, left)
}

/** Marks a new target, which takes writing; of a known one it is told whether it has lost its bans. */
export async function tryTarget(target: Target, { call, isNew }: Trial): Promise<void> {
  try {
    if (isNew) await target.start(call)
    else await target.check(call)
  } catch (error) {
    if (!(error instanceof LostGeneration)) throw error
    say(`note: ${messageOf(error)}`)
  } finally {
    await target.close?.()
  }
}

/** The secret of a login: a file's, or what a person types. */
export async function secretOf(
  values: Values,
  option: string,
  asked: () => Promise<string>,
): Promise<string> {
  const given = textOption(values, option)
  if (given === undefined) return await asked()
  const text = textOf(given)
  if (text === undefined) throw new Failure(EXIT.input, `Cannot find ${quote(given)}`)
  return text.replace(/\r?\n$/, '')
}

async function readWish<S extends Settings>(
  kind: Kind<S>,
  target: InstallTarget,
  values: Values,
): Promise<Wish<S>> {
  const url = await readUrl(kind, values)
  const known = knownOf(kind, target, url, values)
  if (kind.before && known.at < 0) {
    say(await kind.before(url, values))
    const asks = textOption(values, 'pin') === undefined && textOption(values, 'ca') === undefined
    if (asks && process.stdin.isTTY && !target.dryRun)
      await ask('Press Enter when that is done. ', '')
  }
  const title = textOption(values, 'title') ?? hostOf(url)
  const place = `${CONFIG_DIR}/${kind.name}-${title}`
  const { ca, pin } = await readTrust(kind.seen, target, url, `${place}.pem`, values)
  const { user, secret } = await kind.login(values)
  const secretPath = `${place}.${kind.secret}`
  const entry = {
    ...(textOption(values, 'title') !== undefined && { name: title }),
    url,
    ...(ca && { ca: ca.path }),
    ...(pin !== undefined && { pin }),
    ...(user !== undefined && { user }),
    [`${kind.secret}_file`]: secretPath,
    ...kind.keys(values, known.entries[known.at] ?? {}),
  }
  const result = v.safeParse(kind.schema, { ...entry, [kind.secret]: secret })
  const [settings] = result.success ? result.output : []
  if (!settings) throw new Failure(EXIT.input, `Cannot use this: ${deepest(result.issues)}`)
  return { entry, settings, secret, secretPath, ca, ...known }
}

async function readUrl(kind: Pick<Kind<never>, 'port' | 'path'>, values: Values): Promise<string> {
  const given = textOption(values, 'address') ?? (await ask('Firewall address: ', '--address'))
  const [, host = '', port = kind.port] =
    /^(\[[^\]]+\]|[^:]+|[^[]*:[^[]*:[^[]*?)(?::(\d{1,5}))?$/.exec(given) ?? []
  const place = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host
  const url = `https://${place}${port === '443' ? '' : `:${port}`}${kind.path}`
  if (host === '' || !URL.canParse(url)) {
    throw new Failure(EXIT.input, `Cannot read --address ${quote(given)}: HOST or HOST:PORT`)
  }
  return url
}

/** What config.yaml says of us and of this kind. */
function knownOf(
  kind: Pick<Kind<never>, 'name'>,
  target: InstallTarget,
  url: string,
  values: Values,
) {
  const settings = readSettings(target)
  const entries = [(settings?.[kind.name] ?? []) as Entry | Entry[]].flat()
  const own = hostname().split('.')[0] ?? ''
  const owner = settings ? (settings.owner ?? own) : (textOption(values, 'owner') ?? own)
  const at = entries.findIndex((one) => {
    return URL.canParse(String(one.url)) && new URL(String(one.url)).href === new URL(url).href
  })
  return { entries, at, owner: checkOwner(String(owner)) }
}

/** Before anything is written here. */
async function tryOut<S extends Settings>(
  kind: Kind<S>,
  target: InstallTarget,
  { settings, ca, owner, at }: Wish<S>,
): Promise<string> {
  const config = { owner, state_dir: '/nonexistent' } as Call['config']
  const call = makeCall({ config, path: '', warnings: [] }, { 'dry-run': target.dryRun }, 30)
  // What will be the place of its authority is not filled yet.
  const reachable = { ...settings, ...(ca && { ca: ca.from }) }
  try {
    return await kind.tryOut(reachable, { call, isNew: at < 0 })
  } catch (error) {
    const text = `Nothing was changed: cannot use ${quote(settings.name)}: ${messageOf(error)}`
    throw new Failure(codeOf(error), text)
  }
}

function partsOf<S>(
  kind: Pick<Kind<never>, 'name'>,
  target: InstallTarget,
  wish: Wish<S>,
): Resource[] {
  const { ca } = wish
  return [
    folder(target.at(CONFIG_DIR)),
    secretFile(target, wish.secretPath, `${wish.secret}\n`),
    ...(ca ? [file(target.at(ca.path), ca.text, 0o644, { kept: true })] : []),
    sectionOf(kind.name, target, wish),
  ]
}

function uninstalled(
  { name, secret }: Pick<Kind<never>, 'name' | 'secret'>,
  target: InstallTarget,
  values: Values,
): Resource[] {
  const title = textOption(values, 'title') ?? textOption(values, 'address')?.split(':')[0]
  const folder = target.at(CONFIG_DIR)
  const found = existsSync(folder) ? readdirSync(folder) : []
  const every = new RegExp(`^${name}-.*\\.(${secret}|pem)$`)
  const secrets = found.filter((one) =>
    title ? one === `${name}-${title}.${secret}` : every.test(one),
  )
  return [
    ...(title ? [] : [configEdit(target, name, '')]),
    ...secrets.map((one) => file(join(folder, one), '', 0o600, { kept: true })),
  ]
}

/**
 * The entry in config.yaml. What others wrote there stays as it is, remarks included; of an
 * entry for the same appliance only a renewed certificate is changed.
 */
function sectionOf<S>(name: string, target: InstallTarget, wish: Wish<S>): Resource {
  const { entry, entries, at } = wish
  const text = textOf(target.at(CONFIG)) ?? ''
  const isSame = entries[at]?.pin === entry.pin && entries[at]?.ca === entry.ca
  const made = at < 0 ? withEntry(text, name, wish) : withTrust(text, name, wish)
  return {
    ...configEdit(target, name, isSame ? text : made),
    state: () => (at < 0 ? 'absent' : isSame ? 'same' : 'different'),
  }
}

function withEntry<S>(text: string, name: string, { entry, entries, owner }: Wish<S>): string {
  const start = text === '' ? `# fail2ban-perimeter\n${stringify({ owner })}` : text
  if (entries.length === 0) return withSection(start, { [name]: entry })
  const document = parseDocument(start)
  document.set(name, document.createNode([...entries, entry]))
  return document.toString()
}

function withTrust<S>(text: string, name: string, { entry, at }: Wish<S>): string {
  const document = parseDocument(text)
  const where = Array.isArray(document.toJS()[name]) ? [name, at] : [name]
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

function advise({ name, action }: Pick<Kind<never>, 'name' | 'action'>, left: string): void {
  const command = `f2b-${name}`
  say(`
${left}

Then test it; the first prints nothing when all is well:
  ${command} check
  ${command} ban --ip 192.0.2.7 --bantime 60 && ${command} list && ${command} flush --name -

Then let Fail2Ban use it, in /etc/fail2ban/jail.local, and run ${restartCommand()}:
[DEFAULT]
banaction = ${action}
banaction_allports = ${action}`)
}
