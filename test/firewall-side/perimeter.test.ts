import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { run } from '../../scripts/lib/run.ts'
import { PERIMETER, useFirewall } from '../lib/firewall.ts'

const fw = useFirewall()

/** What comes of exactly this on standard input: code and the one line on standard error. */
async function told(input: string): Promise<string> {
  const { code, stdout, stderr } = await fw.box.run(process.execPath, [PERIMETER], { input })
  assert.equal(stdout, '')
  assert.match(stderr, /^$|^firewall: [^\n]+\n$/)
  return `${code} ${stderr.slice(10, -1)}`
}

test('perimeter does not trust the gate: it reads owner and peer again', async () => {
  for (const owner of ['', '-x', '../web1', 'a;b', 'ä', 'x'.repeat(65)]) {
    assert.match(await told(`owner ${owner}\ncheckfw\n`), /^65 Cannot read owner "/)
  }
  assert.match(await told('owner web1 nowhere\ncheckfw\n'), /^65 Cannot read address "nowhere"/)
  assert.match(await told('banip web1\ncheckfw\n'), /^64 Cannot read the gate's line "banip web1"$/)
  assert.match(await told('\ncheckfw\n'), /^64 Cannot read the gate's line ""$/)
})

test('perimeter wants both lines whole', async () => {
  const inputs = ['', 'owner web1', 'owner web1\n', 'owner web1\nfluships', 'x'.repeat(100_000)]
  for (const input of inputs) assert.equal(await told(input), '64 No request on standard input')
})

test('perimeter takes a peer that is not known, and protects one that is', async () => {
  const ban = (peer: string): Promise<string> =>
    told(`owner web1${peer}\nbanip fail2ban-sshd 192.0.2.10 22 tcp\n`)
  assert.equal(await ban(''), '0 ')
  assert.match(await ban(' 192.0.2.10'), /^65 overlaps "192\.0\.2\.10"/)
  assert.match(await ban(' ::ffff:192.0.2.10'), /^65 /)
})

test('perimeter answers a session for as long as it lasts, and ends with its input', async () => {
  assert.deepEqual(await fw.session([]), [])
  assert.deepEqual(await fw.session(['', 'generation', 'checkfw', 'list'], 'web2'), [
    'abcd0123',
    'ok',
    'error 64 Unknown operation "checkfw"',
    'ok',
  ])
})

test('perimeter ends a session when an upgrade has replaced it, and what it was told then waits for the next', async () => {
  const copy = '/root/perimeter.cjs'
  await fw.box.run('cp', [PERIMETER, copy])
  const child = fw.box.start(process.execPath, [copy])
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  child.stdin.write('owner web3 192.0.2.12\nfirewall\nban fail2ban-x 203.0.113.30 22 tcp\n')
  assert.equal((await lines.next()).value, 'ok')
  await fw.box.run('cp', ['--remove-destination', PERIMETER, copy])
  child.stdin.write('ban fail2ban-x 203.0.113.31 22 tcp\n')
  const gone = once(child, 'exit')
  assert.ok((await lines.next()).done, 'no answer')
  assert.deepEqual(await gone, [0, null])
  const blocks = await fw.blocks()
  assert.ok(blocks.includes('fail2ban-x 203.0.113.30'))
  assert.ok(!blocks.includes('fail2ban-x 203.0.113.31'))
  assert.equal(await fw.say('flush', 'web3'), '')
})

test('perimeter tells a server whether another bans an address, but not which and in which jail', async () => {
  const ban = 'banip fail2ban-private 198.51.100.0/24 22 tcp 4000000000'
  assert.equal((await fw.ask(ban, 'web1')).code, 0)
  const { code, stdout, stderr } = await fw.ask('blocked 198.51.100.7', 'web2')
  assert.deepEqual([code, stdout, stderr], [0, '198.51.100.0/24 4000000000\n', ''])
  assert.deepEqual(await fw.session(['blocked 198.51.100.7', 'blocked 203.0.113.1'], 'web2'), [
    '198.51.100.0/24 4000000000',
    'ok',
    'ok',
  ])
  assert.equal((await fw.ask('unbanip fail2ban-private 198.51.100.0/24', 'web1')).code, 0)
})

test('perimeter has no more than twelve processes of an owner at work, and waits for a place', async () => {
  const open = Array.from({ length: 12 }, () => {
    const child = fw.box.start(process.execPath, [PERIMETER])
    child.stdin.write('owner web8 192.0.2.10\nfirewall\ngeneration\n')
    return child
  })
  await Promise.all(open.map((child) => once(child.stdout, 'data')))
  const waiting = fw.ask('listips', 'web8')
  assert.equal((await fw.ask('listips', 'web9')).code, 0, 'others are served')
  open[0]?.stdin.end()
  assert.equal((await waiting).code, 0)
  const again = fw.box.start(process.execPath, [PERIMETER])
  again.stdin.write('owner web8 192.0.2.10\nfirewall\ngeneration\n')
  await once(again.stdout, 'data')
  const refused = await fw.ask('listips', 'web8')
  const sentence = '12 commands and sessions of "web8" are open: end one of them first'
  assert.deepEqual([refused.code, refused.stderr], [75, `firewall: ${sentence}\n`])
  for (const child of [...open, again]) child.stdin.end()
})

test('perimeter reads a changed firewall.yaml in a session that is open', async () => {
  const child = fw.box.start(process.execPath, [PERIMETER])
  const said = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const ask = async (line: string): Promise<string> => {
    child.stdin.write(`${line}\n`)
    return (await said.next()).value
  }
  child.stdin.write('owner web9 192.0.2.10\nfirewall\n')
  const ban = 'ban fail2ban-sshd 203.0.113.80 22 tcp'
  assert.equal(await ask('session 9'), 'ok')
  assert.equal(await ask(ban), 'ok')
  const path = '/etc/fail2ban-perimeter/firewall.yaml'
  await fw.write(path, 'backend: nftables\nnever_ban: ["203.0.113.80"]\n')
  assert.match(await ask(ban), /^error 65 overlaps "203\.0\.113\.80"/)
  assert.deepEqual(await fw.session(['session 10'], 'web9'), ['ok'])
  assert.equal(await ask(ban), 'error 75 superseded: 10 is newer', 'it is the same session')
  await fw.write(path, 'backend: nftables\n')
  await fw.ask('fluships', 'web9')
})

test('perimeter refuses what an older session says, and says which number is to be beaten', async () => {
  const ban = 'ban fail2ban-sshd 203.0.113.70 22 tcp'
  assert.equal(await fw.say('session 5', 'web3'), '')
  assert.equal(await fw.say(ban, 'web3'), '')
  assert.deepEqual(await fw.session(['session 5', ban], 'web3'), [
    'error 75 superseded: 5 is newer',
    'error 75 superseded: 5 is newer',
  ])
  assert.equal(
    await fw.say('unban fail2ban-sshd 203.0.113.70', 'web3'),
    '',
    'it is the newest still',
  )
  assert.deepEqual(await fw.session(['session 6', 'list'], 'web3'), ['ok', 'ok'])
  assert.equal(await fw.say(ban, 'web3'), 'error 75 superseded: 6 is newer')
  assert.ok(!(await fw.blocks()).includes('fail2ban-sshd 203.0.113.70'))
  const another = await fw.session(['session 1', ban, 'session 7', 'flush'], 'web4')
  assert.deepEqual(another, ['ok', 'ok', 'ok', 'ok'])
})

test('perimeter refuses a command that was decided before the last about the same lease', async () => {
  const told = async (words: string): Promise<string> => {
    const { code, stdout, stderr } = await fw.ask(words, 'web5')
    return `${code} ${stdout}${stderr}`.trim()
  }
  const [ban, unban] = [
    'banip fail2ban-sshd 203.0.113.71 22 tcp 0',
    'unbanip fail2ban-sshd 203.0.113.71',
  ]
  const now = Date.now()
  const late = (ms: number): string => `75 firewall: superseded: ${now + ms} is newer`
  assert.equal(await told(`${unban} @${now + 5}`), `0 @${now + 5}`)
  assert.equal(await told(`${ban} @${now}`), late(5))
  assert.equal(await told(`${unban} @${now}`), `0 @${now}`, 'it wants the same')
  const web = 'banip fail2ban-web 203.0.113.71 22 tcp 0'
  assert.equal(await told(`${web} @${now + 7}`), `0 @${now + 7}`)
  assert.equal(await told(`${web} @${now + 6}`), `0 @${now + 6}`, 'it wants the same')
  assert.equal(await told(`unbanip fail2ban-web 203.0.113.71 @${now + 6}`), late(7))
  assert.equal(await told(`fluships @${now}`), late(7))
  assert.equal(await told(`${ban} @${now} over ${now + 5}`), `0 @${now}`)
  assert.equal(await told(`fluships @${now + 9}`), `0 @${now + 9}`)
  assert.equal(await told(`banip fail2ban-web 203.0.113.72 22 tcp 0 @${now + 8}`), late(9))
  assert.equal(await told(ban), '0', 'who does not say when is taken at his word')
  await fw.ask('fluships', 'web5')
})

test('perimeter begins its answer with when it was asked, so that no greeting is taken for it', async () => {
  const { stdout } = await fw.ask('listips @1790000000123', 'web6')
  assert.equal(stdout, '@1790000000123\n')
  const now = `@${Date.now()}`
  assert.deepEqual(await fw.session([`session ${now}`, 'generation'], 'web6'), [
    now,
    'ok',
    'abcd0123',
    'ok',
  ])
})

test('perimeter measures a lease by the clock of the server that says it', async () => {
  const hour = 3600
  const at = Math.floor(Date.now() / 1000) - hour // the server is an hour behind us
  const said = (seconds = 0) => `@${(at + seconds) * 1000}`
  const lines = await fw.session(
    [
      `ban fail2ban-sshd 203.0.113.73 22 tcp ${at + 600} ${said()}`,
      `sync fail2ban-web 22 tcp 2 ${said(1)}`,
      `203.0.113.74 ${at + 300}`,
      '203.0.113.75 0',
      `list ${said(3)}`,
    ],
    'web7',
  )
  const { stdout } = await fw.ask(`checkfw ${said(4)}`, 'web7')
  assert.match(stdout, /\nclock 3[56]\d\d seconds ahead of the server's\n/)
  const listed = [`203.0.113.73 sshd ${at + 600} web7`, `203.0.113.74 web ${at + 300} web7`]
  assert.deepEqual(lines.filter((line) => line.endsWith('web7')).slice(0, 2), listed)
  const ends = [...(await fw.ledger()).matchAll(/^203\.0\.113\.7[34] \S+ (\d+) web7$/gm)]
  const ahead = ends.map(([, end]) => Number(end) - at)
  assert.ok(Math.abs((ahead[0] ?? 0) - hour - 600) < 30, `${ahead}`)
  assert.ok((await fw.blocks()).includes('fail2ban-web 203.0.113.74'))
  await fw.ask('fluships', 'web7')
})

test('perimeter takes no arguments and refuses who is not root with 77', async () => {
  assert.equal((await fw.root('perimeter', 'checkfw')).code, 64)
  const user = ['--reuid=65534', '--regid=65534', '--clear-groups']
  const input = 'owner web1\ncheckfw\n'
  const ended = await run('setpriv', [...user, process.execPath, PERIMETER], { input })
  assert.deepEqual(
    [ended.code, ended.stderr],
    [77, 'firewall: Cannot change the firewall as an ordinary user: run it as root\n'],
  )
})
