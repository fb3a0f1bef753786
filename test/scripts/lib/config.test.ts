import assert from 'node:assert/strict'
import { chmodSync, chownSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import * as v from 'valibot'
import { parse } from 'yaml'
import { loadConfig, readYaml } from '../../../scripts/lib/config.ts'
import { temporaryFolder } from '../../lib/folder.ts'

const folder = temporaryFolder('config')
const path = `${folder}/config.yaml`

/** The lines of the failure that a text of YAML ends in, without the file's name. */
function problems(yaml: string): string[] {
  writeFileSync(path, yaml)
  try {
    loadConfig(path)
  } catch (error) {
    assert.equal((error as { code: number }).code, 78)
    return (error as Error).message.split('\n').map((line) => line.replace(`${path}:`, ''))
  }
  return []
}

test('loadConfig() fills in every default', () => {
  writeFileSync(path, 'owner: web1\n')
  const { config, warnings } = loadConfig(path)
  assert.deepEqual(warnings, [])
  assert.equal(config.owner, 'web1')
  assert.deepEqual(config.min_prefix, { ipv4: 24, ipv6: 48 })
  assert.equal(config.state_dir, '/var/lib/fail2ban-perimeter')
  assert.deepEqual([config.never_ban, config.firewalls], [[], []])
})

test('loadConfig() takes an empty file for one with every default', () => {
  assert.deepEqual(problems(''), [])
  assert.deepEqual(problems('# nothing\n'), [])
})

test('loadConfig() reports all problems together, each where it is', () => {
  const yaml = `owner: -web1
nonsense: 1
never_ban:
  - 192.0.2.1
  - 1.2
  - edge1
firewalls:
  - host: -oProxyCommand=id
    port: 70000
  - user: fail2ban
`
  const lines = problems(yaml)
  const places = lines.map((line) => line.replace(/^(\d+:\d+): .*/, '$1'))
  assert.deepEqual(
    places,
    ['1:8', '2:1', '5:5', '6:5', '8:11', '9:11', '10:5'].slice(0, places.length),
  )
  assert.ok(places.length >= 6, lines.join('\n'))
  assert.match(lines.join('\n'), /2:1: unknown key "nonsense"/)
  assert.match(lines.join('\n'), /5:5: "never_ban.1": must be text: put it in quotes/)
})

test('loadConfig() says in plain words what a value must be, and never what it is', () => {
  const table: [yaml: string, said: string][] = [
    ['never_ban: edge1', '1:12: "never_ban": must be a list'],
    ['never_ban:', '1:11: "never_ban": must be a list, and is empty'],
    ['state_dir: 12', '1:12: "state_dir": must be text: put it in quotes'],
    ['state_dir: [a]', '1:12: "state_dir": must be text'],
    ['fail2ban: [a, b]', '1:11: "fail2ban": must be a map'],
    ['firewalls: [edge1]', '1:13: "firewalls.0": must be a map'],
    [
      'firewalls: [{host: a, port: x}]',
      '1:29: "firewalls.0.port": must be a whole number from 1 to 65535',
    ],
    ['sophosxg: 5', '1:11: "sophosxg": must be a map or a list of maps'],
    ['sophosxg: [x]', '1:12: "sophosxg.0": must be a map'],
    [
      'abuseipdb: {key: a, jail_categories: [1]}',
      '1:38: "abuseipdb.jail_categories": must be a map',
    ],
    ['net2ban: {global: {mode: x}}', '1:26: "net2ban.global.mode": must be server or client'],
    [
      'net2ban: {global: {mode: client, tls: x}}',
      '1:39: "net2ban.global.tls": must be true or false',
    ],
    [
      'fortigate: {feed: {user: a, pass: 12345678}}',
      '1:35: "fortigate.feed.pass": must be text: put it in quotes',
    ],
    [
      'fortigate: {webhook: {events: [x]}}',
      '1:32: "fortigate.webhook.events.0": must be sslvpn, ipsec or admin',
    ],
    [
      'fortigate: {push: {url: "https://a", name: ""}}',
      '1:44: "fortigate.push.name": must have 1 to 35 characters',
    ],
    ['just text', '1:1: must be a map'],
    ['- a\n- b', '1:1: must be a map'],
  ]
  for (const [yaml, said] of table) assert.deepEqual(problems(yaml), [said])
})

test('loadConfig() has a sentence of ours for whatever stands in any key', () => {
  const secret = { pass_file: '/x', ca: '/x', pin: 'x', deadline: '1s' }
  const whole = {
    ...parse(readFileSync('config.yaml', 'utf8')),
    sophosxg: [{ url: 'x', user: 'x', mode: 'x', verifySslCertificate: true, ...secret }],
    mikrotik: { url: 'x', user: 'x', list: 'x', ...secret },
    opnsense: [{ url: 'x', alias: 'x', key_file: '/x' }],
  }
  const foreign = /Invalid|Expected|Array|Object|string|null|undefined|, not \d|[|]/
  let asked = 0
  for (const wrong of [5, 'x y', '', true, null, [5], [['x']], [], {}, { a: 5 }]) {
    for (const spoilt of spoiled(whole, wrong)) {
      for (const line of problems(JSON.stringify(spoilt))) {
        assert.doesNotMatch(line.replace(/"[^"]*"/, ''), foreign)
        asked++
      }
    }
  }
  assert.ok(asked > 1000, `${asked}`)
})

/** The same with something else in the place of one value, for each value at any depth. */
function spoiled(node: unknown, wrong: unknown): unknown[] {
  if (typeof node !== 'object' || node === null) return [wrong]
  const whole = Object.entries(node).flatMap(([key, value]) =>
    spoiled(value, wrong).map((one) =>
      Array.isArray(node) ? node.with(Number(key), one) : { ...node, [key]: one },
    ),
  )
  return [wrong, ...whole]
}

test('loadConfig() reports YAML that cannot be read, with line and column', () => {
  assert.match(problems('owner: web1\nowner: web2\n').join(), /^2:1: .*unique/)
  assert.match(problems('owner: [web1\n').join(), /^\d+:\d+: /)
})

test('loadConfig() answers 78 for a file that is not there', () => {
  const missing = { code: 78, message: `Cannot read "${folder}/none": no such file or directory` }
  assert.throws(() => loadConfig(`${folder}/none`), missing)
})

test('readYaml() reads a secret from its file and warns if others can', () => {
  const shape = v.strictObject({ box: v.strictObject({ pass: v.string() }) })
  writeFileSync(`${folder}/secret`, 'top\n', { mode: 0o600 })
  writeFileSync(path, `box:\n  pass_file: ${folder}/secret\n`)
  const { pass: key, ...rest } = { pass: 'top' }
  assert.deepEqual(rest, {})
  const unknown = v.object({ box: v.object({ pass: v.string() }) })
  assert.deepEqual(readYaml(path, unknown, 'box'), { value: { box: { pass: key } }, warnings: [] })
  chmodSync(`${folder}/secret`, 0o644)
  assert.deepEqual(readYaml(path, unknown, 'box').warnings, [
    `"${folder}/secret" can be read by others`,
  ])
  // The group that may read the configuration may read its secrets.
  chmodSync(`${folder}/secret`, 0o640)
  chownSync(`${folder}/secret`, 0, 65534)
  assert.equal(readYaml(path, unknown, 'box').warnings.length, 1)
  chownSync(path, 0, 65534)
  assert.deepEqual(readYaml(path, unknown, 'box').warnings, [])
  chownSync(path, 0, 0)
  // systemd's copies are locked by an ACL, whose mask stands where the group's rights would be.
  process.env.CREDENTIALS_DIRECTORY = folder
  chmodSync(`${folder}/secret`, 0o440)
  assert.deepEqual(readYaml(path, unknown, 'box').warnings, [])
  delete process.env.CREDENTIALS_DIRECTORY
  assert.throws(() => readYaml(path, shape), { code: 78 })
  writeFileSync(path, `box:\n  pass: x\n  pass_file: ${folder}/secret\n`)
  assert.throws(() => readYaml(path, unknown, 'box'), /3:14: give "pass" or "pass_file", not both/)
})
