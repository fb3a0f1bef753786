import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { EXIT, Failure } from '../failure.ts'
import { quote } from '../lease.ts'
import { tried } from './commands.ts'
import { restartCommand } from './fail2ban.ts'
import type { InstallTarget, Resource } from './plan.ts'
import { isRunning } from './processes.ts'
import { settingsIfReadable } from './yaml.ts'

/** How to ask the Fail2Ban that config.yaml names. */
interface Client {
  program: string
  options: string[]
  folder: string
}

/**
 * Refuses an uninstallation while a jail of Fail2Ban bans with one of our actions, as it runs or as it
 * is configured: it would ban into nothing, and could not start again.
 *
 * @param files what is going to be removed from Fail2Ban's folder: it must do without
 * @throws Failure 75, before anything is changed
 */
export async function refuseIfUsed(
  target: InstallTarget,
  actions: string[],
  files: Resource[] = [],
): Promise<void> {
  const client = clientOf(target)
  if (target.prefix || !existsSync(client.folder)) return
  const ours = (name: string) => actions.some((one) => name === one || name.startsWith(`${one}-`))
  const [configured] = (await configuredActions(client)).filter(({ action }) => ours(action))
  if (configured) {
    const { jail, action } = configured
    throw inUse(
      `${quote(jail)} bans with ${action}: take it out of ${client.folder}/jail.local or jail.d, ${restartCommand()}`,
    )
  }
  const [running] = (await runningActions(client)).filter(({ action }) => ours(action))
  if (running) {
    const { jail, action } = running
    throw inUse(`${quote(jail)} still runs with ${action}: ${restartCommand()}`)
  }
  const why = await whyNotWithout(client, files)
  if (why) throw inUse(`does not start without our files: ${why}`)
}

function inUse(why: string): Failure {
  const text = `Nothing was changed: Fail2Ban's jail ${why}, and run this again`
  return new Failure(EXIT.temporary, text.replace("'s jail does not", ' does not'))
}

function clientOf(target: InstallTarget): Client {
  const { fail2ban } = settingsIfReadable(target)
  const {
    client = 'fail2ban-client',
    socket,
    config_dir,
  } = (fail2ban ?? {}) as Record<string, string>
  const options = [...(socket ? ['-s', socket] : []), ...(config_dir ? ['-c', config_dir] : [])]
  return { program: client, options, folder: config_dir ?? '/etc/fail2ban' }
}

interface Use {
  jail: string
  action: string
}

async function configuredActions({ program, options }: Client): Promise<Use[]> {
  const { stdout } = await tried`${program} ${options} -d`
  const lines = stdout.matchAll(/^\['set', '([^']+)', 'addaction', '([^']+)'/gm)
  return [...lines].map(([, jail = '', action = '']) => ({ jail, action }))
}

async function runningActions({ program, options }: Client): Promise<Use[]> {
  // With socket activation a question would start it.
  if (!isRunning('fail2ban-server')) return []
  const ask = async (...words: string[]) => (await tried`${program} ${options} ${words}`).stdout
  const jails = /Jail list:\s*(.*)/.exec(await ask('status'))?.[1]?.split(/,\s*/) ?? []
  const uses: Use[] = []
  for (const jail of jails.filter(Boolean)) {
    const [, ...lines] = (await ask('get', jail, 'actions')).split('\n')
    uses.push(
      ...lines
        .join(',')
        .split(/[,\s]+/)
        .filter(Boolean)
        .map((action) => ({ jail, action })),
    )
  }
  return uses
}

/** Why Fail2Ban could not start without these files of ours; undefined if it could, or cannot now. */
async function whyNotWithout(client: Client, files: Resource[]): Promise<string | undefined> {
  const test = (folder: string) => tried`${client.program} -c ${folder} -t`
  if (files.length === 0 || (await test(client.folder)).code !== 0) return undefined
  const work = mkdtempSync(join(tmpdir(), 'f2b-setup-'))
  try {
    cpSync(client.folder, work, { recursive: true })
    for (const { name } of files) rmSync(join(work, relative(client.folder, name)), { force: true })
    const { code, stdout, stderr } = await test(work)
    if (code === 0) return undefined
    const lines = `${stdout}\n${stderr}`.split('\n').filter((line) => line.includes('ERROR'))
    return lines.at(-1)?.replace(/^.*ERROR\s*/, '') ?? 'fail2ban-client -t'
  } finally {
    rmSync(work, { recursive: true })
  }
}
