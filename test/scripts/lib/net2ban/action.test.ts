import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { propertiesOf, resolveAction } from '../../../../scripts/lib/net2ban/action.ts'
import { readActionFile } from '../../../../scripts/lib/net2ban/action-file.ts'
import type { ActionName } from '../../../../scripts/lib/net2ban/call.ts'

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
