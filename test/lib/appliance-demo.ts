/** The story of an appliance with an API, for `npm run demo`: a real Fail2Ban, a simulated box. */
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { type Ended, run } from '../../scripts/lib/run.ts'
import { inSite, type Simulator, type Site, type Sort, usable } from './appliance-setup.ts'
import { type Fail2Ban, openFail2Ban, withCommands } from './fortigate-jail.ts'
import { expect, type Stage } from './stage.ts'
import { unlessAborted, waitUntil } from './wait.ts'

const ATTACKER = '203.0.113.7'
const OTHER = '2001:db8::7'
const LATE = '203.0.113.8'

export interface Play<S> {
  sort: Sort<S>
  /** What a person calls it. */
  box: string
  about: string
  /** Takes the rights of our login away, and gives them back. */
  spoil(sim: S): () => void
  /** What happens without Fail2Ban, if it is worth a step. */
  coda?(scene: Scene<S>): Promise<void>
}

export interface Scene<S> {
  stage: Stage
  site: Site<S>
  fail2ban: Fail2Ban
  /** Writes a failed login into the log of a jail. */
  fail(jail: 'sshd' | 'nginx', address: string): void
  /** Runs one of our commands, and shows it with what it prints. */
  play(line: string): Promise<Ended>
  /** Shows what the box blocks, once it is just this. */
  blocks(...addresses: string[]): Promise<void>
}

const JAILS = (folder: string, action: string) => `[DEFAULT]
backend = polling
filter = login
maxretry = 1
bantime = 600
action = ${action}[name=%(__name__)s]

[sshd]
enabled = true
logpath = ${folder}/sshd.log

[nginx]
enabled = true
logpath = ${folder}/nginx.log
`

/** Plays it with a Fail2Ban of its own, and leaves nothing behind. */
export async function playAppliance<S extends Simulator>(
  stage: Stage,
  signal: AbortSignal,
  { sort, box, about, spoil, coda }: Play<S>,
): Promise<void> {
  stage.title(sort.section, about)
  const began = performance.now()
  await inSite(sort, async (site) => {
    site.world.sim.scale = 1
    stage.step(`Set it up: certificate, login and rights are tried before anything is written`)
    const config = await setUp(stage, site, sort)
    const { dir } = site.world
    for (const jail of ['sshd', 'nginx']) writeFileSync(join(dir, `${jail}.log`), '')
    const env = {
      ...process.env,
      PATH: withCommands(dir, [`f2b-${sort.section}`]),
      FAIL2BAN_PERIMETER_CONFIG: config,
    }
    const fail2ban = openFail2Ban(JAILS(dir, `${sort.section}-perimeter`), env)
    writeFileSync(
      join(fail2ban.folder, 'filter.d/login.conf'),
      '[Definition]\nfailregex = ^ failure <ADDR>$\ndatepattern = ^Epoch\n',
    )
    // Shows when a command has ended.
    writeFileSync(join(fail2ban.folder, 'fail2ban.local'), '[Definition]\nloglevel = DEBUG\n')
    appendFileSync(
      config,
      `fail2ban:\n  socket: ${fail2ban.folder}/sock\n  config_dir: ${fail2ban.folder}\n`,
    )
    const scene = sceneOf(stage, site, fail2ban, env)
    try {
      await unlessAborted(signal, story(scene, sort.section, box, spoil))
      if (coda) await unlessAborted(signal, coda(scene))
    } finally {
      await fail2ban.close()
    }
  })
  const seconds = Math.round((performance.now() - began) / 1000)
  stage.summary(`A real Fail2Ban and a simulated ${box}. ${seconds} seconds.`)
}

/** @returns the path of the configuration */
async function setUp<S extends Simulator>(
  stage: Stage,
  site: Site<S>,
  { section, login: [option] }: Sort<S>,
): Promise<string> {
  const { host } = new URL(site.world.sim.url)
  stage.command('web1#', `f2b-setup ${section} --address ${host} ${option} ... --pin ...`)
  const { code, stdout, stderr } = await site.setup(`--owner web1 --pin ${site.pin}`)
  expect(code === 0, stderr)
  stage.output(stdout.replaceAll(site.prefix, ''))
  return usable(site)
}

function sceneOf<S extends Simulator>(
  stage: Stage,
  site: Site<S>,
  fail2ban: Fail2Ban,
  env: NodeJS.ProcessEnv,
): Scene<S> {
  const { sim, dir } = site.world
  return {
    stage,
    site,
    fail2ban,
    fail(jail, address) {
      const now = Math.floor(Date.now() / 1000)
      appendFileSync(join(dir, `${jail}.log`), `${now} failure ${address}\n`)
      stage.output(`${jail}: failed login from ${address}`)
    },
    async play(line) {
      stage.command('web1#', line)
      const [name = '', ...words] = line.split(' ')
      if (name === 'fail2ban-client') return await fail2ban.client(...words)
      const script = resolve(`dist/${name.replace('f2b-', '')}.cjs`)
      const ended = await run(process.execPath, [script, ...words], { env })
      if (ended.stdout + ended.stderr !== '') stage.output(ended.stdout + ended.stderr)
      return ended
    },
    async blocks(...addresses) {
      const wanted = addresses.toSorted().join(', ')
      await waitUntil(wanted || 'nobody', () => sim.blocked().join(', ') === wanted)
      stage.fact(`blocked: ${wanted || 'nobody'}`)
    },
  }
}

async function story<S extends Simulator>(
  scene: Scene<S>,
  section: string,
  box: string,
  spoil: Play<S>['spoil'],
): Promise<void> {
  const { stage, site, fail2ban, fail, play, blocks } = scene
  const { sim } = site.world
  const command = `f2b-${section}`
  const log = () => readFileSync(fail2ban.log, 'utf8')
  const commands = () => log().match(/-- returned successfully/g)?.length ?? 0

  stage.step(`Start Fail2Ban with banaction = ${section}-perimeter`)
  await start(scene)
  await waitUntil('both jails', () => commands() >= 2)
  const check = await play(`${command} check`)
  expect(check.code === 0, check.stderr)

  stage.step('Failed logins are logged')
  const [mark, since] = [sim.log.length, performance.now()]
  fail('sshd', ATTACKER)
  await waitUntil('the ban', () => sim.blocked().includes(ATTACKER), { every: 5 })
  stage.fact('from the log line to the block', performance.now() - since, 'ms')
  stage.fact(`calls of the ${box}`, sim.log.length - mark)
  fail('sshd', OTHER)
  await blocks(ATTACKER, OTHER)

  stage.step('Another jail bans the attacker, too: the last one to let go frees it')
  const before = commands()
  fail('nginx', ATTACKER)
  await waitUntil('its ban', () => commands() > before)
  await play(`fail2ban-client set sshd unbanip ${ATTACKER}`)
  await blocks(ATTACKER, OTHER)
  await play(`fail2ban-client set nginx unbanip ${ATTACKER}`)
  await blocks(OTHER)
  fail('sshd', LATE)
  await blocks(LATE, OTHER)

  stage.step('Fail2Ban restarts: nothing is unblocked meanwhile')
  await waitUntil('its database', () => {
    return readFileSync(join(fail2ban.folder, 'fail2ban.sqlite3')).includes(LATE)
  })
  await play('fail2ban-client stop')
  await blocks(LATE, OTHER)
  const stopped = commands()
  await start(scene)
  await waitUntil('two jails and the two bans that they restore', () => commands() >= stopped + 4)
  await blocks(LATE, OTHER)

  stage.step(`The ${box} reboots, and has lost everything`)
  sim.reboot()
  await blocks()
  const lost = await play(`${command} check`)
  expect(lost.code === 75, `it was not noticed: ${lost.code}`)
  const synced = await play('f2b-sync')
  expect(/^added 2, /m.test(synced.stdout), synced.stderr)
  await blocks(LATE, OTHER)
  await play('f2b-sync')

  stage.step('An administrator takes the rights of our login away')
  const heal = spoil(sim)
  fail('sshd', ATTACKER)
  const said = () => new RegExp(`${section}: Cannot ban .*`).exec(log())?.[0]
  await waitUntil('what Fail2Ban is told', () => said() !== undefined)
  stage.output(`fail2ban.log: ${said()?.replace(/'$/, '').replaceAll("\\'", "'")}`)
  heal()
  await play('f2b-sync')
  await blocks(ATTACKER, LATE, OTHER)
}

async function start<S>({ stage, fail2ban }: Scene<S>): Promise<void> {
  stage.command('web1#', 'fail2ban-client start')
  const { code, stdout, stderr } = await fail2ban.client('start')
  expect(code === 0, stdout + stderr)
}
