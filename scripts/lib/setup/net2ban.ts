import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, join, normalize } from 'node:path'
import * as v from 'valibot'
import { parseDocument } from 'yaml'
import { type Options, textOption, usageFailure, type Values } from '../command.ts'
import { explain, readYaml } from '../config.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { quote } from '../lease.ts'
import { ActionFiles } from '../net2ban/actions.ts'
import { dropIn, ENV } from '../net2ban/exec.ts'
import { type Net2ban, net2ban as shape } from '../settings/net2ban.ts'
import { brokerParts, CA, tlsParts } from './broker.ts'
import { $, command } from './commands.ts'
import { realignDelivery } from './delivery.ts'
import { actionFiles } from './fail2ban.ts'
import { refuseIfUsed } from './in-use.ts'
import {
  CONFIG,
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
import {
  account,
  credentials,
  file,
  folder,
  fromPackage,
  remnants,
  rendered,
  services,
  stateFolder,
  textOf,
  unit,
  wantedIf,
} from './things.ts'
import { nodeInUnit } from './trust.ts'
import { configEdit, parsed, settingsIfReadable, withSection } from './yaml.ts'

const PROGRAM = `${LIB}/net2ban.cjs`

/** Those of Fail2Ban that send to the nodes. */
const ACTIONS = ['net2ban', 'net2ban-allports']

type Word = 'server' | 'client'

/** The options that only `f2b-setup net2ban` has. */
export const NET2BAN_OPTIONS: Options = {
  broker: { type: 'string' },
  client: { type: 'string', multiple: true },
  'make-certificate': { type: 'boolean' },
  'no-tls': { type: 'boolean' },
  'client-config': { type: 'string' },
  systemd: { type: 'string' },
}

export const NET2BAN_HELP = `f2b-setup net2ban server
  --broker HOST[:PORT] how everybody reaches this machine's RabbitMQ; the first
                       time
  --client NAME        a node; may be repeated, and added later
  --make-certificate   make an authority and a certificate for the broker
  --no-tls             everything on one machine, or in a network of its own
f2b-setup net2ban client
  --client-config FILE what "net2banctl get_client NAME" printed on the server`

/** `f2b-setup net2ban server|client`: beside RabbitMQ, or on a node. */
export async function setUpNet2ban(
  target: InstallTarget,
  values: Values,
  word: Word,
): Promise<void> {
  const systemd = hasSystemd(values)
  if (target.uninstall) return word === 'server' ? leaveServer(target) : leaveNode(target)
  if (word === 'client') {
    const { parts, section } = clientConfig(target, values)
    await install([...parts, ...program(target, word, systemd, [])], target)
    await realignDelivery(target)
    return target.prefix ? undefined : adviseNode(section)
  }
  const text = serverConfig(target, values)
  const { section, secrets } = readSection(text, target)
  const { server: host, port } = section.global
  const made = values['make-certificate'] === true
  const parts = [
    folder(target.at(CONFIG_DIR)),
    configEdit(target, 'net2ban', text),
    ...(made ? tlsParts(target, host, port) : []),
    ...(target.prefix ? [] : await brokerParts(section)),
    ...actionFiles(target, ACTIONS),
    ...program(target, word, systemd, secrets),
  ]
  await install(parts, target)
  await realignDelivery(target)
  advise(target, section, made)
}

async function leaveServer(target: InstallTarget): Promise<void> {
  const files = actionFiles(target, ACTIONS)
  await refuseIfUsed(target, ACTIONS, files)
  const text = sectionText(target)
  if (text === undefined && !target.prefix)
    say('note: no section net2ban in config.yaml: RabbitMQ is left alone')
  const ours = text !== undefined && !target.prefix
  const tls = tlsParts(target, 'localhost', 5671)
  const parts = [
    configEdit(target, 'net2ban', ''),
    remembered(target, 'server'),
    ...tls.map((one) => ({ ...one, kept: one.name.endsWith('.pem') })),
    ...(ours ? await brokerParts(readSection(text, target).section) : []),
    ...files,
    ...program(target, 'server', true, []),
  ]
  await install(parts, target)
}

/** Undone in reverse: the service, what it has in force, and then the program that ends that. */
async function leaveNode(target: InstallTarget): Promise<void> {
  const there = sectionText(target) !== undefined
  const all = program(target, 'client', true, [])
  const service = target.live ? all.splice(-1) : []
  const released = there && !target.prefix ? [inForce(target)] : []
  const config = [configEdit(target, 'net2ban', ''), remembered(target, 'client')]
  await install([...config, ...all, ...released, ...service], target)
}

/** config.yaml, if net2ban has a section in it. */
function sectionText(target: InstallTarget): string | undefined {
  const text = textOf(target.at(CONFIG))
  return text !== undefined && parseDocument(text).has('net2ban') ? text : undefined
}

/** What net2ban remembers in the state directory, and of this boot. */
function remembered(target: InstallTarget, word: Word): Resource {
  const { state_dir } = settingsIfReadable(target)
  const state = target.at(typeof state_dir === 'string' ? state_dir : STATE_DIR)
  const run = target.at(RUN_DIR)
  const marks = existsSync(run) ? readdirSync(run).filter((n) => n.startsWith('net2ban.')) : []
  const paths = [
    join(state, `net2ban-${word}`),
    ...(word === 'server' ? [join(state, 'net2banctl')] : marks.map((name) => join(run, name))),
  ].filter(existsSync)
  return remnants(`what net2ban ${word} remembers in ${state}/`, () => paths)
}

/** Rules of the node's actions in the kernel, which nothing would end any more. */
function inForce(target: InstallTarget): Resource {
  const program = target.at(PROGRAM)
  return {
    name: 'what the node has in force',
    state: () => (existsSync(program) ? 'same' : 'absent'),
    undo: () => $`${process.execPath} ${program} client --release`,
  }
}

/** The configuration with the section, and with the clients that are new. */
function serverConfig(target: InstallTarget, values: Values): string {
  const path = target.at(CONFIG)
  const text = textOf(path)
  const names = (values.client ?? []) as string[]
  const document = parsed(text ?? '', path)
  if (!document.has('net2ban')) {
    const start = text ?? `# fail2ban-perimeter\nowner: ${hostname().split('.')[0]}\n`
    return withSection(start, { net2ban: fresh(values, names) })
  }
  const missing = names.filter((name) => !document.hasIn(['net2ban', 'clients', name]))
  if (missing.length === 0) return text ?? ''
  for (const name of missing) {
    document.setIn(['net2ban', 'clients', name], document.createNode({ key: secret() }))
  }
  return document.toString()
}

function fresh(values: Values, names: string[]) {
  const broker = textOption(values, 'broker')
  if (broker === undefined) throw usageFailure('Missing option --broker')
  const [, host, port] = /^([A-Za-z0-9][A-Za-z0-9.-]*)(?::(\d{1,5}))?$/.exec(broker) ?? []
  if (!host) throw new Failure(EXIT.input, `Cannot read --broker ${quote(broker)}: HOST[:PORT]`)
  const tls = values['no-tls'] !== true
  return {
    global: {
      server: host,
      port: Number(port ?? (tls ? 5671 : 5672)),
      tls,
      ...(values['make-certificate'] && { ca_file: CA }),
      rounds: 12_000,
      secret: secret(),
      mode: 'server',
      valid_wtime: 3600,
      authkey: secret(),
      queue_prefix: 'net2ban_',
    },
    server: { input: 'input_net2ban', key: secret() },
    keygen: { keylen: 40 },
    clients: Object.fromEntries(names.map((name) => [name, { key: secret() }])),
  }
}

function secret(): string {
  return randomBytes(20).toString('hex')
}

/** The section as net2ban reads it, and the files with secrets that it names. */
function readSection(text: string, target: InstallTarget): { section: Net2ban; secrets: string[] } {
  const whole = v.looseObject({ net2ban: shape })
  const given = parseDocument(text).toJS() ?? {}
  const files = [...JSON.stringify(given.net2ban ?? {}).matchAll(/"(?:\w+_file)":"([^"]+)"/g)]
  const secrets = files.map(([, path = '']) => path)
  if (existsSync(target.at(CONFIG)) && textOf(target.at(CONFIG)) === text) {
    // With what its files hold.
    return { section: readYaml(target.at(CONFIG), whole, 'net2ban').value.net2ban, secrets }
  }
  const result = v.safeParse(whole, given)
  if (result.success) return { section: result.output.net2ban, secrets }
  throw new Failure(EXIT.input, `Cannot use this: ${explain(result.issues[0])}`)
}

/** On a node: the very file that get_client printed, unless there is a configuration already. */
function clientConfig(
  target: InstallTarget,
  values: Values,
): { parts: Resource[]; section: Net2ban } {
  const from = textOption(values, 'client-config')
  const path = target.at(CONFIG)
  const there = textOf(path)
  const text = from === undefined ? there : textOf(from)
  if (text === undefined) throw usageFailure('Missing option --client-config')
  const { section } = readSection(text, target)
  if (section.global.mode !== 'client') {
    throw new Failure(EXIT.input, `${from ?? path} is not for a client: net2banctl get_client NAME`)
  }
  const merged = there === undefined || there === text ? text : withTheirs(there, text, path)
  const parts = [folder(target.at(CONFIG_DIR)), configEdit(target, 'net2ban', merged)]
  return { parts, section }
}

/** Another configuration's section in this one, everything else as it was. */
function withTheirs(there: string, text: string, path: string): string {
  const document = parsed(there, path)
  document.set('net2ban', document.createNode(parseDocument(text).toJS().net2ban))
  return document.toString()
}

/** The program and what starts it. The server is an account; a node is root, with few capabilities. */
function program(
  target: InstallTarget,
  word: Word,
  systemd: boolean,
  secrets: string[],
): Resource[] {
  const name = `net2ban-${word}.service`
  const values = { NODE: nodeInUnit(), CREDENTIAL: credentials([CONFIG, ...secrets]) }
  const one = unit(target, name, rendered(target, `scripts/units/${name}`, values))
  const content = target.uninstall ? '' : fromPackage(target, 'dist/net2ban.cjs')
  return [
    stateFolder(target),
    ...(!target.prefix && word === 'server' ? [account({ name: 'net2ban' })] : []),
    folder(target.at(LIB)),
    file(target.at(PROGRAM), content, 0o755),
    ...wantedIf(systemd, [one, ...services(target, [name], [one])]),
  ]
}

function advise(target: InstallTarget, { clients, global }: Net2ban, made: boolean): void {
  if (made && !target.prefix) say('note: restart RabbitMQ once: systemctl restart rabbitmq-server')
  if (!global.tls) say('note: without TLS, who listens on the way sees who sends, though not what')
  const [name = 'NAME'] = Object.keys(clients)
  say(`
Now bring each node its configuration, which is made of secrets:
  net2banctl get_client ${name} | ssh root@${name} 'umask 077; cat > ${name}.yaml'
  ssh root@${name} f2b-setup net2ban client --client-config ${name}.yaml
Then look from here:
  net2banctl status`)
}

/** Says what the node's usual action lacks here, as the node would once it is to ban. */
async function adviseNode({ default_action: file, global }: Net2ban): Promise<void> {
  let text: string
  try {
    const action = await new ActionFiles(global.action_dir).action(file, { name: 'default' })
    const words = ['actionstart', 'actionban', 'actionunban'] as const
    text = words.map((word) => action.command(word, 'inet4')).join('\n')
  } catch (error) {
    return say(`note: ${messageOf(error)}`)
  }
  for (const program of await missing(text)) {
    say(`note: action ${file} needs "${program}", which this node does not have: install it`)
  }
  const [path] = /\bufw\b/.test(text) ? ['/etc/ufw/'] : (/\/etc\/[^\s'"]*/.exec(text) ?? [])
  if (path) say(`note: action ${file} writes below /etc: ${dropIn(dirname(normalize(`${path}x`)))}`)
}

/** The commands of a piece of shell that are not here. */
async function missing(text: string): Promise<string[]> {
  const bare = text.replace(/\\.|\$\{[^}]*\}|'[^']*'|"(?:[^"\\]|\\.)*"/gs, "''")
  const commands = bare.split(/[\n;|&(){}`!]|\b(?:then|else|do|if|elif|while|until)\b/)
  const first = commands.flatMap(
    (command) => /^\s*([A-Za-z/][\w./+-]*)(?=\s|$)/.exec(command)?.[1] ?? [],
  )
  const script = 'for word; do command -v -- "$word" >/dev/null || echo "$word"; done'
  const { stdout } = await command({ env: ENV })`sh -c ${script} sh ${[...new Set(first)]}`
  return stdout.split('\n').filter(Boolean)
}
