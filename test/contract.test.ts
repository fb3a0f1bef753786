import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { describe, test } from 'node:test'
import manifest from '../package.json' with { type: 'json' }
import { EXIT_TABLE } from '../scripts/lib/failure.ts'
import { type Ended, run } from '../scripts/lib/run.ts'
import { temporaryFolder } from './lib/folder.ts'

// One test over all scripts and action files: what every one of them promises.

const VERBS = ['start', 'stop', 'check', 'flush', 'ban', 'unban', 'list', 'sync']
const folder = temporaryFolder('contract')
writeFileSync(
  `${folder}/config.yaml`,
  `owner: web1
firewalls:
  - host: edge1
sophosxg:
  url: https://fw1.example:4444/webconsole/APIController
  user: apiuser
  pass: secret
mikrotik:
  url: https://router.example
  user: f2b
  pass: secret
opnsense:
  url: https://gate.example
  key: "key=secret\\nsecret=secret"
fortigate: {}
threatjammer:
  key: secret
abuseipdb:
  key: secret
net2ban:
  global: {mode: server, secret: a-long-shared-secret, authkey: a-long-shared-authkey}
  server: {key: the-key-of-the-server}
`,
)

const scripts = names('scripts', '.ts')
const siblings = scripts.filter((name) =>
  readFileSync(`scripts/${name}.ts`, 'utf8').includes('runSibling('),
)
const programs = [...scripts, ...names('firewall-side', '.ts').map((n) => `firewall-side/${n}`)]

function names(directory: string, end: string): string[] {
  if (!existsSync(directory)) return []
  const found = readdirSync(directory).filter((name) => name.endsWith(end))
  return found.map((name) => basename(name, end)).sort()
}

function call(name: string, ...args: string[]): Promise<Ended> {
  return run(process.execPath, [`dist/${name}.cjs`, ...args])
}

async function fails(code: number, name: string, ...args: string[]): Promise<void> {
  const ended = await call(name, ...args)
  const said = { args, code: ended.code, stdout: ended.stdout }
  assert.deepEqual(said, { args, code, stdout: '' })
  assert.match(ended.stderr, /^[a-z0-9-]+: [^\n]+\n$/)
}

test('there are siblings and programs to look at', () => {
  assert.ok(siblings.includes('dummy') && siblings.includes('firewall'))
  assert.ok(programs.includes('firewall-side/perimeter') && programs.includes('banip'))
})

for (const name of programs) {
  test(`${name} --help teaches and --version tells the version`, async () => {
    const help = await call(name, '--help')
    assert.deepEqual({ code: help.code, stderr: help.stderr }, { code: 0, stderr: '' })
    assert.match(help.stdout, /^Usage: \S+.*\n( +.*\n)*\n[A-Z]/)
    assert.ok(help.stdout.includes(EXIT_TABLE))
    for (const line of help.stdout.split('\n')) assert.match(line, /^[ -~]{0,80}$/)
    const version = await call(name, '--version')
    assert.deepEqual(version, { code: 0, stdout: `${manifest.version}\n`, stderr: '' })
  })

  test(`${name} refuses an unknown option with 64`, () => fails(64, name, '--no-such-option'))
}

for (const name of siblings) {
  describe(name, () => {
    test('names every verb in its help', async () => {
      const { stdout } = await call(name, '--help')
      for (const verb of VERBS) assert.match(stdout, new RegExp(`^  ${verb} +\\w`, 'm'))
    })

    test('refuses no verb, an unknown verb and a word too many with 64', async () => {
      await fails(64, name)
      await fails(64, name, 'drop')
      await fails(64, name, 'check', 'twice')
      for (const verb of ['ban', 'unban']) await fails(64, name, verb)
    })

    test('refuses bad values with 65, whatever the configuration', async () => {
      for (const ip of ['fe80::1%eth0', '$(id)', '999.1.1.1', 'example.com', '']) {
        for (const verb of ['ban', 'unban']) await fails(65, name, verb, '--ip', ip)
      }
      await fails(65, name, 'ban', '--ip', '192.0.2.7', '--bantime', '1h')
      await fails(65, name, 'ban', '--ip', '192.0.2.7', '--time', 'now')
    })

    test('refuses a missing configuration with 78, for every verb', async () => {
      const missing = `${folder}/none.yaml`
      for (const verb of VERBS) {
        await fails(78, name, verb, '--ip', '192.0.2.7', '--config', missing)
      }
    })

    test('never bans what is in never_ban and enters nothing that is over', async () => {
      const options = ['--config', `${folder}/config.yaml`, '--dry-run']
      await fails(65, name, 'ban', '--ip', '127.0.0.1', ...options)
      await fails(65, name, 'ban', '--ip', '10.0.0.0/8', ...options)
      const over = ['--ip', '192.0.2.7', '--time', '1000000000.5', '--bantime', '60', ...options]
      assert.deepEqual(await call(name, 'ban', ...over), { code: 0, stdout: '', stderr: '' })
    })
  })
}

const actions = names('action.d', '.conf').filter(
  (name) => !/^perimeter-(queue|blocks)$/.test(name),
)

for (const name of actions) {
  describe(`action.d/${name}.conf`, () => {
    const text = withIncluded(name)
    const section = (title: string): string =>
      (text.split(/^(?=\[)/m).find((part) => part.startsWith(`[${title}]`)) ?? '').replace(
        /^\s*#.*\n/gm,
        '',
      )

    test('has all actions, an Init section with a timeout, and one for IPv6', () => {
      for (const verb of ['start', 'stop', 'check', 'ban', 'unban', 'flush']) {
        assert.match(section('Definition'), new RegExp(`^action${verb} *=`, 'm'))
      }
      assert.match(section('Init'), /^timeout *= *\d+/m)
      // A reporter treats both families alike, and starts nothing that a family could miss.
      const reports = /^norestored *= *1$/m.test(section('Definition'))
      assert.ok(reports || text.includes('[Init?family=inet6]'))
    })

    test('has tags only inside double quotes', () => {
      const commands = section('Definition').matchAll(/^action\w+ *=(.*(?:\n[ \t]+.*)*)/gm)
      for (const [line, command = ''] of commands) {
        const bare = command
          .replace(/"[^"]*"/g, '')
          .replace(/<(_[a-z_<>]+|firewall|sophosxg|mikrotik|opnsense|sync)>/g, '')
        assert.doesNotMatch(bare, /<(?!_)[a-zA-Z][\w-]*>/, line)
      }
    })

    test('is read by Fail2Ban', async () => {
      const etc = `${folder}/${name}`
      await run('cp', ['-r', '/etc/fail2ban', etc])
      await run('cp', ['-r', 'action.d', etc])
      writeFileSync(`${folder}/log`, '')
      const jail = `[DEFAULT]\n[sshd]\nenabled = true\nbackend = polling\nlogpath = ${folder}/log`
      await run('sh', ['-c', `rm -rf ${etc}/jail.d/* ${etc}/jail.local`])
      writeFileSync(`${etc}/jail.local`, `${jail}\naction = ${name}[name=sshd]\n`)
      const { code, stdout, stderr } = await run('fail2ban-client', ['-c', etc, '-d'])
      assert.equal(code, 0, stderr)
      assert.ok(stdout.includes(`'addaction', '${name}'`), stdout)
    })
  })
}

/** An action file with the one of ours that it builds on. */
function withIncluded(name: string): string {
  const text = readFileSync(`action.d/${name}.conf`, 'utf8')
  const before = `action.d/${/^before *= *(\S+)/m.exec(text)?.[1]}`
  // What a file builds on by itself stands behind it: the first section of a name is its own.
  const own = !/^actionban *=/m.test(text)
  const base = existsSync(before) ? readFileSync(before, 'utf8') : ''
  return own ? base + text : text + base
}
