import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { propertiesOf, resolveAction } from '../../../scripts/lib/net2ban/action.ts'
import { readActionFile } from '../../../scripts/lib/net2ban/action-file.ts'
import type { ActionName } from '../../../scripts/lib/net2ban/call.ts'
import { parseActionFile } from '../../../scripts/lib/net2ban/node.ts'

// Every action file of the distribution, read by us and by the very modules of its Fail2Ban: what
// `fail2ban-client -d` would tell the server, and the texts that the server would run.

const BASE = '/etc/fail2ban'
const PARAMS: Record<string, string>[] = [
  { name: 'sshd' },
  { name: 'sshd', port: '22,80:90', protocol: 'tcp,udp', chain: 'FORWARD', blocktype: 'DROP' },
]

interface Reference {
  error?: string
  settings: Record<string, string>
  texts: Record<string, string>
  families: string[]
  onDemand: boolean
  timeout: number
}

function ask(wanted: { file: string; params: Record<string, string> }[], base = BASE): Reference[] {
  const program = 'test/lib/fail2ban-commands.py'
  const input = JSON.stringify(wanted)
  return JSON.parse(execFileSync('/usr/bin/python3', [program, base], { input, encoding: 'utf8' }))
}

function check(file: string, params: Record<string, string>, wanted: Reference, base = BASE): void {
  const source = readActionFile(`${base}/action.d`, file)
  const properties = propertiesOf(source, params)
  for (const [name, value] of Object.entries(wanted.settings)) {
    if (name === 'bantime') continue // The server ignores it.
    const ours = properties.get(name)
    const isFlag = value === 'True' || value === 'False'
    assert.equal(isFlag ? asFlag(ours) : ours, value, `${file} ${name}`)
  }
  const action = resolveAction(source, params)
  const { families, onDemand, timeout } = action
  assert.deepEqual(
    { families, onDemand, timeout },
    { families: wanted.families, onDemand: wanted.onDemand, timeout: wanted.timeout },
    file,
  )
  for (const [key, text] of Object.entries(wanted.texts)) {
    const [name = '', family = ''] = key.split(' ') as [string, 'inet4' | 'inet6']
    const ip = family === 'inet4' ? '192.0.2.1' : '2001:db8::1'
    const values = new Map([
      ['ip', ip],
      ['time', '1700000000'],
      ['bantime', '600'],
    ])
    const ours = action.command(`action${name}` as ActionName, family as 'inet4', values)
    assert.equal(ours, text, `${file} ${key}`)
  }
}

function asFlag(text = ''): string {
  return ['1', 'on', 'true', 'yes'].includes(text.toLowerCase()) ? 'True' : 'False'
}

test('every action file of the distribution resolves to what Fail2Ban resolves it to', () => {
  const files = readdirSync(`${BASE}/action.d`)
    .filter((name) => name.endsWith('.conf'))
    .map((name) => name.slice(0, -'.conf'.length))
  const wanted = files.flatMap((file) => PARAMS.map((params) => ({ file, params })))
  const answers = ask(wanted)
  let compared = 0
  for (const [i, { file, params }] of wanted.entries()) {
    const answer = answers[i]
    assert.ok(answer)
    if (answer.error !== undefined || !answer.settings.actionban) continue // Only to be included.
    check(file, params, answer)
    compared++
  }
  assert.ok(compared > 100, `only ${compared} compared`)
})

const TRICKY: Record<string, string> = {
  'base.conf': `[INCLUDES]
before = first.conf
after = last.conf
	missing.conf
[DEFAULT]
everywhere = %(__name__)s-100%%
[Definition]
# a remark
actionban = echo "<ip>" ; an inline remark
   --deeper "a;b" #no remark

     --after a blank line
   # a remark within
	--tab %(everywhere)s
actionunban: echo colon = %(other)s <section/word> <known/zone>
other = <private_<kind>> %(known/other)s
ActionCheck = UPPER <Init/zone>
actionflush =
actionstart_on_demand = No
private_one = 1 <two>
two = %(helper/nested)s
[helper]
nested = %(everywhere)s
[section]
word = of section <kind>
[Init]
kind = one
zone = public
timeout = 2m
both = for four
[Init?family=inet6]
both = for six
zone = six
`,
  'base.local':
    '[Definition]\nactionprolong = <both> <actname> <name> <br>x<sp>y <unknown> <STDIN\n',
  'first.conf': '[Definition]\nother = of first\nactionflush = of first\n[Init]\nkind = two\n',
  'first.local': '[Init]\nfresh = of the local file\n',
  'last.conf':
    '[INCLUDES]\nbefore = base.conf\n[Definition]\nactionstop = <fresh> <both> %(other)s\n',
  'circle.conf': '[Definition]\nactionban = <a>\na = <b>\nb = <a>\n',
  'percent.conf': '[Definition]\nactionban = date +%Y <ip>\n',
  'nowhere.conf': '[Definition]\nactionban = %(gone)s <ip>\n',
  'twice.conf': '[Definition]\nactionban = a\nactionban = b\n',
  'sections.conf': '[Definition]\nactionban = a\n[Definition]\nactionunban = b\n',
  'bare.conf': 'actionban = a\n',
  'word.conf': '[Definition]\nactionban = a\nword\n',
  'simple.conf': '[Definition]\nactionban = echo <ip> <F-USER> <matches> <family>\nactionunban =\n',
}

test('includes, .local files, references and remarks mean what they mean to Fail2Ban', () => {
  const base = mkdtempSync('/tmp/f2b-actions-')
  try {
    mkdirSync(`${base}/action.d`)
    for (const [name, text] of Object.entries(TRICKY))
      writeFileSync(`${base}/action.d/${name}`, text)
    const files = Object.keys(TRICKY).flatMap((name) => /^(.*)\.conf$/.exec(name)?.[1] ?? [])
    const wanted = files.map((file) => ({ file, params: { name: 'sshd' } }))
    const refused: string[] = []
    for (const [i, answer] of ask(wanted, base).entries()) {
      const { file = '', params = {} } = wanted[i] ?? {}
      if (answer.error === undefined && answer.settings.actionban) check(file, params, answer, base)
      else if (answer.error !== undefined) refused.push(file)
    }
    for (const file of refused) {
      const use = () => resolveAction(readActionFile(`${base}/action.d`, file), { name: 'sshd' })
      assert.throws(use, { code: 78 }, file)
    }
    assert.deepEqual(refused, ['circle', 'percent', 'nowhere', 'twice', 'sections', 'bare', 'word'])
  } finally {
    rmSync(base, { recursive: true })
  }
})

test('parseActionFile() refuses what a node could not run', () => {
  const good = '[INCLUDES]\nbefore = iptables.conf\n[Definition]\ntype = multiport\n'
  assert.equal(parseActionFile('mine', good, `${BASE}/action.d`).file, 'mine')
  const bad = [
    '',
    'x',
    '[Init]\na = b\n',
    '[Definition]\nactionstart = x\n',
    '[Definition]\nactionban =\n',
    '[Definition]\nactionban = %x\n',
  ]
  for (const text of [...bad, `${good}type = twice\n`]) {
    assert.throws(() => parseActionFile('mine', text, `${BASE}/action.d`), { code: 65 }, text)
  }
  for (const file of ['../mine', 'mine.conf', '', '-x']) {
    assert.throws(() => parseActionFile(file, good, `${BASE}/action.d`), { code: 65 }, file)
  }
})
