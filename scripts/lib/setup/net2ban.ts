import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, join, normalize } from 'node:path'
import * as v from 'valibot'
import { isMap, parseDocument, stringify } from 'yaml'
import { type Options, textOption, usageFailure, type Values } from '../command.ts'
import { readYaml } from '../config.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { quote } from '../lease.ts'
import { ActionFiles } from '../net2ban/actions.ts'
import { dropIn, ENV } from '../net2ban/exec.ts'
import { run } from '../run.ts'
import { type Net2ban, net2ban as shape } from '../settings/net2ban.ts'
import { call } from './account.ts'
import { apply, type Item, say } from './changes.ts'
import { configItem, configText } from './config-file.ts'
import { actionItems } from './fail2ban.ts'
import { refuseIfUsed, settingsOf } from './in-use.ts'
import { file, folder, rootsFolder, textOf } from './items.ts'
import { brokerItems } from './net2ban-broker.ts'
import { CA, tlsItems } from './net2ban-tls.ts'
import { ACCOUNT, net2banUnit } from './net2ban-unit.ts'
import { CONFIG_DIR, fromPackage, type Place } from './place.ts'
import { realignDelivery } from './realign.ts'
import { hasSystemd } from './units.ts'

const CONFIG = `${CONFIG_DIR}/config.yaml`
const PROGRAM = '/usr/local/lib/fail2ban-perimeter/net2ban.cjs'
const STATE = '/var/lib/fail2ban-perimeter'

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
  --broker HOST[:PORT] how everybody reaches this machine's RabbitMQ; the first time
  --client NAME        a node; may be repeated, and added later
  --make-certificate   make an authority and a certificate for the broker
  --no-tls             everything on one machine, or in a network of its own
f2b-setup net2ban client
  --client-config FILE what "net2banctl get_client NAME" printed on the server`

/** `f2b-setup net2ban server|client`: beside RabbitMQ, or on a node. */
export async function setUpNet2ban(place: Place, values: Values, word: Word): Promise<void> {
  const systemd = hasSystemd(textOption(values, 'systemd') ?? 'auto')
  if (place.uninstall) return uninstall(place, word)
  if (word === 'client') {
    const { items, section } = clientConfig(place, values)
    await apply([...items, ...program(place, word, systemd, [])], place)
    await realignDelivery(place)
    return place.prefix ? undefined : adviseNode(section)
  }
  const text = serverConfig(place, values)
  const { section, secrets } = readSection(text, place)
  const { server: host, port } = section.global
  const made = values['make-certificate'] === true
  const items = [
    folder(place.at(CONFIG_DIR)),
    configItem(place, 'net2ban', text),
    ...(made ? tlsItems(place, host, port) : []),
    ...(place.prefix ? [] : await brokerItems(section)),
    ...actionItems(place, ACTIONS),
    ...program(place, word, systemd, secrets),
  ]
  await apply(items, place)
  await realignDelivery(place)
  advise(place, section, made)
}

async function uninstall(place: Place, word: Word): Promise<void> {
  const text = configText(place)
  const there = text !== undefined && parseDocument(text).has('net2ban')
  const config = configItem(place, 'net2ban', '')
  const state = remembered(place, word)
  if (word === 'client') {
    const released = there && !place.prefix ? [inForce(place)] : []
    // Undone in reverse: the service, what it has in force, and then the program that ends that.
    const [service, ...others] = program(place, word, true, []).toReversed()
    const items = [
      config,
      state,
      ...others.toReversed(),
      ...released,
      ...(service ? [service] : []),
    ]
    return apply(items, place)
  }
  const files = actionItems(place, ACTIONS)
  await refuseIfUsed(
    place,
    ACTIONS,
    files.map(({ name }) => name),
  )
  if (!there && !place.prefix)
    say('note: no section net2ban in config.yaml: RabbitMQ is left alone')
  const broker = there && !place.prefix ? await brokerItems(readSection(text, place).section) : []
  const tls = tlsItems(place, 'localhost', 5671)
  const kept = tls.map((item) => ({ ...item, kept: item.name.endsWith('.pem') }))
  await apply(
    [config, state, ...kept, ...broker, ...files, ...program(place, word, true, [])],
    place,
  )
}

/** What net2ban remembers in the state directory, and of this boot. */
function remembered(place: Place, word: Word): Item {
  const { state_dir } = settingsOf(place)
  const state = place.at(typeof state_dir === 'string' ? state_dir : STATE)
  const run = place.at('/run/fail2ban-perimeter')
  const marks = existsSync(run) ? readdirSync(run).filter((n) => n.startsWith('net2ban.')) : []
  const paths = [
    join(state, `net2ban-${word}`),
    ...(word === 'server' ? [join(state, 'net2banctl')] : marks.map((name) => join(run, name))),
  ].filter(existsSync)
  return {
    name: `what net2ban ${word} remembers in ${state}/`,
    kept: true,
    look: () => (paths.length > 0 ? 'same' : 'absent'),
    make() {},
    remove: () => {
      for (const path of paths) rmSync(path, { recursive: true })
    },
  }
}

/** Rules of the node's actions in the kernel, which nobody would end any more. */
function inForce(place: Place): Item {
  const program = place.at(PROGRAM)
  return {
    name: 'what the node has in force',
    look: () => (existsSync(program) ? 'same' : 'absent'),
    make() {},
    remove: () => call(process.execPath, [program, 'client', '--release']),
  }
}

/** The configuration with the section, and with the clients that are new. */
function serverConfig(place: Place, values: Values): string {
  const path = place.at(CONFIG)
  const text = textOf(path)
  const names = (values.client ?? []) as string[]
  const document = parseDocument(text ?? `owner: ${hostname().split('.')[0]}\n`)
  const [error] = document.errors
  if (error)
    throw new Failure(EXIT.config, `Cannot read "${path}": ${error.message.split('\n')[0]}`)
  if (isMap(document.contents) && document.contents.has('net2ban')) {
    const missing = names.filter((name) => !document.hasIn(['net2ban', 'clients', name]))
    if (missing.length === 0) return text ?? ''
    for (const name of missing) {
      document.setIn(['net2ban', 'clients', name], document.createNode({ key: secret() }))
    }
    return document.toString()
  }
  const start = text ?? `# fail2ban-perimeter\n${document.toString()}`
  return `${start.trimEnd()}\n\n${stringify({ net2ban: fresh(values, names) })}`
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
function readSection(text: string, place: Place): { section: Net2ban; secrets: string[] } {
  const given = parseDocument(text).toJS()?.net2ban
  const files = [...JSON.stringify(given ?? {}).matchAll(/"(?:\w+_file)":"([^"]+)"/g)]
  const secrets = files.map(([, path = '']) => path)
  if (existsSync(place.at(CONFIG)) && textOf(place.at(CONFIG)) === text) {
    // With what its files hold.
    const whole = v.looseObject({ net2ban: shape })
    return { section: readYaml(place.at(CONFIG), whole, 'net2ban').value.net2ban, secrets }
  }
  const result = v.safeParse(shape, given)
  if (result.success) return { section: result.output, secrets }
  const [issue] = result.issues
  const key = issue.path?.map((item) => String(item.key)).join('.')
  throw new Failure(EXIT.input, `Cannot use net2ban.${key}: ${issue.message}`)
}

/** On a node: the very file that get_client printed, unless there is a configuration already. */
function clientConfig(place: Place, values: Values): { items: Item[]; section: Net2ban } {
  const from = textOption(values, 'client-config')
  const path = place.at(CONFIG)
  const there = textOf(path)
  const text = from === undefined ? there : textOf(from)
  if (text === undefined) throw usageFailure('Missing option --client-config')
  const { section } = readSection(text, place)
  if (section.global.mode !== 'client') {
    throw new Failure(EXIT.input, `${from ?? path} is not for a client: net2banctl get_client NAME`)
  }
  const merged = there === undefined || there === text ? text : withSection(there, text, path)
  return { items: [folder(place.at(CONFIG_DIR)), configItem(place, 'net2ban', merged)], section }
}

/** Another configuration's section in this one, everything else as it was. */
function withSection(there: string, text: string, path: string): string {
  const document = parseDocument(there)
  const [error] = document.errors
  if (error)
    throw new Failure(EXIT.config, `Cannot read "${path}": ${error.message.split('\n')[0]}`)
  document.set('net2ban', document.createNode(parseDocument(text).toJS().net2ban))
  return document.toString()
}

function program(place: Place, word: Word, systemd: boolean, secrets: string[]): Item[] {
  const unit = `net2ban-${word}.service`
  const text = net2banUnit(word, PROGRAM, secrets)
  const unitFile = file(place.at(`/etc/systemd/system/${unit}`), text, 0o644)
  const live = place.prefix === ''
  const content = place.uninstall ? '' : fromPackage(place, 'dist/net2ban.cjs')
  return [
    rootsFolder(place.at(STATE)),
    ...(live && word === 'server' ? [account()] : []),
    folder(place.at('/usr/local/lib/fail2ban-perimeter')),
    file(place.at(PROGRAM), content, 0o755),
    { ...unitFile, unwanted: !systemd },
    ...(systemd && live && existsSync('/run/systemd/system') ? [service(unit, unitFile)] : []),
  ]
}

function account(): Item {
  const args = ['--system', '--no-create-home', '--shell', '/usr/sbin/nologin', ACCOUNT]
  return {
    name: `user ${ACCOUNT}`,
    look: async () => ((await run('getent', ['passwd', ACCOUNT])).code === 0 ? 'same' : 'absent'),
    make: () => call('useradd', args),
    remove: () => call('userdel', [ACCOUNT]),
  }
}

function service(unit: string, unitFile: Item): Item {
  return {
    name: `systemd unit ${unit}`,
    async look() {
      if ((await unitFile.look()) === 'absent') return 'absent'
      const { code } = await run('systemctl', ['is-active', '--quiet', unit])
      return code === 0 && (await unitFile.look()) === 'same' ? 'same' : 'different'
    },
    async make() {
      await call('systemctl', ['daemon-reload'])
      await call('systemctl', ['enable', unit])
      await call('systemctl', ['restart', unit])
    },
    remove: () => call('systemctl', ['disable', '--now', unit]),
  }
}

function advise(place: Place, { clients, global }: Net2ban, made: boolean): void {
  if (made && !place.prefix) say('note: restart RabbitMQ once: systemctl restart rabbitmq-server')
  if (!global.tls) say('note: without TLS, who listens on the way sees who sends, though not what')
  const [name = 'NAME'] = Object.keys(clients)
  say(`
Now bring each node its configuration, which is made of secrets:
  net2banctl get_client ${name} | ssh root@${name} 'umask 077; cat > ${name}.yaml'
  ssh root@${name} f2b-setup net2ban client --client-config ${name}.yaml
Then look from here:
  net2banctl status`)
}

/** Says what the node's usual action lacks here, as the node would once it is to ban somebody. */
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
  const { stdout } = await run('sh', ['-c', script, 'sh', ...new Set(first)], { env: ENV })
  return stdout.split('\n').filter(Boolean)
}
