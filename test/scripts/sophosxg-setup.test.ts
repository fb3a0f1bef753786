import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { type Ended, run } from '../../scripts/lib/run.ts'
import { inWorld, type World } from '../simulators/sophosxg/world.ts'

const ROOT = join(import.meta.dirname, '../..')
const PASS = 'Ge&heim\t1'

/** A simulated firewall and a folder to install below. Setting up takes root. */
const rooted = { skip: process.getuid?.() !== 0 && 'needs root' }

interface Site {
  world: World
  prefix: string
  setup(args: string): Promise<Ended>
  /** A file of the installation. */
  read(path: string): string
}

async function inSite(work: (site: Site) => Promise<void>): Promise<void> {
  await inWorld({ simulator: { pass: PASS } }, async (world) => {
    const prefix = join(world.dir, 'root')
    mkdirSync(join(prefix, 'etc/fail2ban/action.d'), { recursive: true })
    const secret = join(world.dir, 'secret')
    writeFileSync(secret, `${PASS}\n`, { mode: 0o600 })
    const fixed = ['sophosxg', '--address', `127.0.0.1:${world.sim.port}`, '--user', 'apiuser']
    const common = ['--pass-file', secret, '--prefix', prefix]
    const script = join(ROOT, 'dist/setup.cjs')
    await work({
      world,
      prefix,
      setup: (args) => run(process.execPath, [script, ...fixed, ...common, ...args.split(' ')]),
      read: (path) => readFileSync(join(prefix, path), 'utf8'),
    })
  })
}

/** The fingerprint of the simulator's certificate, as openssl prints it. */
const PIN =
  'C7:D7:38:D3:77:12:DD:9D:F7:12:BA:9C:97:D4:73:CA:59:12:4E:49:D7:2B:2C:9D:94:B9:61:D2:3B:FD:AE:F0'

test(
  'f2b-setup sophosxg tests the login, makes the groups and writes the section',
  rooted,
  async () => {
    await inSite(async ({ world, setup, read, prefix }) => {
      const { code, stdout, stderr } = await setup(`--pin ${PIN} --owner web1`)
      assert.deepEqual([code, stderr], [0, ''])
      assert.match(stdout, new RegExp(`SHA-256 ${PIN}`))
      assert.match(stdout, /logged in to 127.0.0.1 as apiuser/)
      assert.match(stdout, /Two things are left to do in the web console/)
      assert.equal(world.sim.box.groups.has('f2b_blockings_v6'), true)
      const config = read('etc/fail2ban-perimeter/config.yaml')
      assert.match(config, /^owner: web1$/m)
      assert.match(config, /^ {2}pass_file: \/etc\/fail2ban-perimeter\/sophosxg-127.0.0.1.pass$/m)
      const pass = 'etc/fail2ban-perimeter/sophosxg-127.0.0.1.pass'
      assert.equal(read(pass), `${PASS}\n`)
      assert.equal(statSync(join(prefix, pass)).mode & 0o777, 0o600)
      assert.match(read('etc/fail2ban/action.d/sophosxg.conf'), /^actionban/m)
      assert.equal(`${stdout}${config}`.includes('heim'), false, 'the password is in its file only')

      const again = await setup(`--pin ${PIN} --owner web1`)
      assert.match(again.stdout, /nothing to change/)
      assert.equal(read('etc/fail2ban-perimeter/config.yaml'), config)

      // The certificate was renewed: the file still has the old pin.
      const path = join(prefix, 'etc/fail2ban-perimeter/config.yaml')
      writeFileSync(path, `# mine\n${config.replace(PIN, '00:'.repeat(32).slice(0, -1))}`)
      assert.equal((await setup(`--pin ${PIN}`)).code, 0)
      assert.equal(read('etc/fail2ban-perimeter/config.yaml'), `# mine\n${config}`)
    })
  },
)

test('f2b-setup sophosxg writes what f2b-sophosxg then works with', rooted, async () => {
  for (const trust of ['pin', 'ca']) {
    await inSite(async ({ world, setup, read }) => {
      const given = trust === 'pin' ? `--pin ${PIN}` : `--ca ${world.sim.ca}`
      assert.equal((await setup(`${given} --owner web1 --title edge --mode iplist`)).code, 0)
      const text = read('etc/fail2ban-perimeter/config.yaml')
      assert.match(text, trust === 'pin' ? /^ {2}pin: /m : /^ {2}ca: .*sophosxg-edge.pem$/m)
      const file = join(world.dir, 'made.yaml')
      const places = text
        .replace(/pass_file: .*/, `pass_file: ${join(world.dir, 'secret')}`)
        .replace(/ca: .*/, `ca: ${world.sim.ca}`)
      writeFileSync(file, places)
      const ended = await world.run('check', { config: file })
      assert.deepEqual(ended, { code: 0, stdout: '', stderr: '' })
    })
  }
})

test(
  'f2b-setup sophosxg keeps the remarks and sections of an existing config.yaml',
  rooted,
  async () => {
    await inSite(async ({ setup, read, prefix }) => {
      const config = join(prefix, 'etc/fail2ban-perimeter/config.yaml')
      mkdirSync(join(prefix, 'etc/fail2ban-perimeter'), { recursive: true })
      const before = '# mine\nowner: web9 # and this\nfirewalls:\n  - host: edge1\n'
      writeFileSync(config, before, { mode: 0o600 })
      assert.equal((await setup(`--pin ${PIN}`)).code, 0)
      assert.equal(read('etc/fail2ban-perimeter/config.yaml').startsWith(before), true)
    })
  },
)

test('f2b-setup sophosxg changes nothing when something is wrong', rooted, async () => {
  await inSite(async ({ world, setup, prefix }) => {
    const trials: [string, number, RegExp][] = [
      ['--owner web1', 64, /Cannot ask, this is no terminal: give --pin or --ca/],
      [`--pin ${'00:'.repeat(31)}00`, 77, /the certificate is not the one of --pin/],
      [`--pin ${PIN} --user nobody`, 77, /login refused/],
      [`--pin ${PIN} --iphost-prefix a,b`, 65, /must not hold a comma/],
      [`--pin ${PIN} --address 127.0.0.1:1`, 69, /Cannot connect/],
    ]
    for (const [args, code, sentence] of trials) {
      const ended = await setup(args)
      assert.equal(ended.code, code, `${args}: ${ended.stderr}`)
      assert.match(ended.stderr, sentence)
      assert.equal(ended.stderr.includes('heim'), false)
    }
    const dry = await setup(`--pin ${PIN} --dry-run`)
    assert.match(dry.stdout, /would create .*config.yaml/)
    assert.match(dry.stdout, /make group f2b_blockings/)
    assert.equal(existsSync(join(prefix, 'etc/fail2ban-perimeter')), false)
    assert.deepEqual(world.sim.writes(), [])
  })
})
