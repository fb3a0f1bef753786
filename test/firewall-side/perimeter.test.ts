import assert from 'node:assert/strict'
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

test('perimeter refuses a session beyond the fortieth of an owner with 75, and no single word', async () => {
  const hold = 'for n in {0..39}; do exec {fd}>>firewall.session.web7.$n; flock $fd; done'
  const ask = (owner: string, word: string) =>
    `printf 'owner ${owner}\\n${word}\\n' | "$0" "$1" >&2; echo $?`
  const script = `cd /run/fail2ban-perimeter; ${hold}
${ask('web7', 'firewall')}; ${ask('web7', 'listips')}; ${ask('web8', 'firewall')}`
  const argv = ['-c', script, process.execPath, PERIMETER]
  const { stdout, stderr } = await fw.box.run('bash', argv)
  assert.equal(stdout, '75\n0\n0\n')
  assert.equal(stderr, 'firewall: 40 sessions of "web7" are open: end one of them first\n')
})

test('perimeter takes no arguments and refuses who is not root with 77', async () => {
  assert.equal((await fw.root('perimeter', 'checkfw')).code, 64)
  const user = ['--reuid=65534', '--regid=65534', '--clear-groups']
  const input = 'owner web1\ncheckfw\n'
  const ended = await run('setpriv', [...user, process.execPath, PERIMETER], { input })
  assert.deepEqual(
    [ended.code, ended.stderr],
    [77, 'firewall: Cannot change the firewall: not root\n'],
  )
})
