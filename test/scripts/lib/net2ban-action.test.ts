import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { ActionFiles, checkActionFile, Unmet } from '../../../scripts/lib/net2ban/actions.ts'
import type { ActionName } from '../../../scripts/lib/net2ban/call.ts'
import { fail2banReleases } from '../../lib/fail2ban-releases.ts'
import { temporaryFolder } from '../../lib/folder.ts'

// Every action file that Fail2Ban ships, beside the texts that the server of that very version runs.

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

interface Wanted {
  file: string
  params: Record<string, string>
}

function ask(wanted: Wanted[], base = BASE): Reference[] {
  const program = 'test/lib/fail2ban-commands.py'
  const input = JSON.stringify(wanted)
  return JSON.parse(execFileSync('/usr/bin/python3', [program, base], { input, encoding: 'utf8' }))
}

async function check(files: ActionFiles, { file, params }: Wanted, reference: Reference) {
  const action = await files.action(file, params)
  const { families, onDemand, timeout } = action
  const wanted = {
    families: reference.families,
    onDemand: reference.onDemand,
    timeout: reference.timeout,
  }
  assert.deepEqual({ families, onDemand, timeout }, wanted, file)
  for (const [key, text] of Object.entries(reference.texts)) {
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

/** As in a node whose Fail2Ban is another one; whatever shell scripts start it. */
async function withModules<T>(folder: string | undefined, work: () => Promise<T>): Promise<T> {
  const before = process.env.PYTHONPATH
  if (folder !== undefined) process.env.PYTHONPATH = folder
  try {
    return await work()
  } finally {
    if (before === undefined) delete process.env.PYTHONPATH
    else process.env.PYTHONPATH = before
  }
}

test('every stock action file means what it means to the Fail2Ban of the node, whatever its version', async () => {
  const versions: string[] = []
  for (const { version, client, config } of await fail2banReleases()) {
    const modules = join(dirname(client), 'usr/lib/python3/dist-packages')
    await withModules(existsSync(modules) ? modules : undefined, async () => {
      const names = readdirSync(`${config}/action.d`).filter((name) => name.endsWith('.conf'))
      const wanted = names
        .map((name) => name.slice(0, -'.conf'.length))
        .flatMap((file) => PARAMS.map((params) => ({ file, params })))
      const answers = ask(wanted, config)
      const files = new ActionFiles(`${config}/action.d`)
      await files.prepare(wanted)
      let compared = 0
      for (const [i, one] of wanted.entries()) {
        const answer = answers[i]
        assert.ok(answer)
        if (answer.error !== undefined || !answer.settings.actionban) continue // Only to be included.
        await check(files, one, answer)
        compared++
      }
      assert.ok(compared > 100, `only ${compared} compared`)
    })
    versions.push(version)
  }
  assert.equal(new Set(versions).size, 3, versions.join())
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

test('includes, .local files, references and remarks mean what they mean to Fail2Ban', async () => {
  const base = mkdtempSync('/tmp/f2b-actions-')
  try {
    mkdirSync(`${base}/action.d`)
    for (const [name, text] of Object.entries(TRICKY))
      writeFileSync(`${base}/action.d/${name}`, text)
    const names = Object.keys(TRICKY).flatMap((name) => /^(.*)\.conf$/.exec(name)?.[1] ?? [])
    const wanted = names.map((file) => ({ file, params: { name: 'sshd' } }))
    const files = new ActionFiles(`${base}/action.d`)
    const refused: string[] = []
    for (const [i, answer] of ask(wanted, base).entries()) {
      const one = wanted[i] as Wanted
      if (answer.error === undefined && answer.settings.actionban) await check(files, one, answer)
      else if (answer.error !== undefined) refused.push(one.file)
    }
    for (const file of [...refused, 'none']) {
      await assert.rejects(files.action(file, { name: 'sshd' }), isOneLine(78), file)
    }
    assert.deepEqual(refused, ['circle', 'percent', 'nowhere', 'twice', 'sections', 'bare', 'word'])
    // Each is looked at anew once it is another.
    writeFileSync(`${base}/action.d/none.conf`, '[Definition]\nactionban = a <ip>\n')
    writeFileSync(`${base}/action.d/first.local`, '[Init]\nfresh = of a later one\n')
    assert.equal((await files.action('none', { name: 'a' })).command('actionban', ''), 'a <ip>')
    const last = await files.action('last', { name: 'sshd' })
    assert.match(last.command('actionstop', 'inet4'), /of a later one/)
  } finally {
    rmSync(base, { recursive: true })
  }
})

function isOneLine(code: number) {
  return (error: Error & { code?: number }) => {
    assert.equal(error.code, code, error.message)
    assert.doesNotMatch(error.message, /\n/)
    return true
  }
}

test('checkActionFile() refuses what a node could not run', async () => {
  const folder = `${BASE}/action.d`
  const good = '[INCLUDES]\nbefore = iptables.conf\n[Definition]\ntype = multiport\n'
  await checkActionFile('mine', good, folder)
  await checkActionFile('iptables-multiport', good, folder)
  const bad = [
    '',
    'x',
    '[Init]\na = b\n',
    '[Definition]\nactionstart = x\n',
    '[Definition]\nactionban =\n',
    '[Definition]\nactionban = %x\n',
  ]
  for (const text of [...bad, `${good}type = twice\n`]) {
    await assert.rejects(checkActionFile('mine', text, folder), isOneLine(65), text)
  }
  for (const file of ['../mine', 'mine.conf', '', '-x']) {
    await assert.rejects(checkActionFile(file, good, folder), isOneLine(65), file)
  }
})

test('a node without Fail2Ban says so, and takes no module from where it was started', async () => {
  const empty = temporaryFolder('no-fail2ban')
  mkdirSync(`${empty}/fail2ban`)
  writeFileSync(`${empty}/fail2ban/__init__.py`, '')
  const files = new ActionFiles(`${BASE}/action.d`)
  const resolve = () => files.action('iptables', { name: 'sshd' })
  await withModules(empty, () =>
    assert.rejects(resolve(), (error) => {
      assert.ok(error instanceof Unmet)
      assert.match(error.message, /^Cannot use iptables: .* has no Fail2Ban .*install Fail2Ban$/)
      return isOneLine(75)(error)
    }),
  )
  const before = process.cwd()
  process.chdir(empty)
  try {
    assert.match((await resolve()).command('actionban', 'inet4'), /iptables/)
  } finally {
    process.chdir(before)
  }
})
