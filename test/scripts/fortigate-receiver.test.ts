import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join, resolve } from 'node:path'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { run } from '../../scripts/lib/run.ts'
import { type Bench, LOGIN, openBench, SECRET } from '../lib/fortigate.ts'
import {
  adminFailed,
  adminFailed5,
  dialUpFailed,
  FortiGate,
  ipsecFailed,
  type Shape,
  SSLVPN_FAILED,
  tunnelUp,
} from '../simulators/fortigate.ts'
import { CORPUS, TRUE, VICTIM } from '../simulators/hostile.ts'

let bench: Bench
let device: FortiGate
before(async () => {
  bench = openBench({
    webhook: { decoy_users: ['backup'] },
    top: { never_ban: ['192.0.2.0/24'] },
  })
  writeFileSync(bench.list, '')
  await bench.startFeed()
  device = new FortiGate({ server: bench.url, secret: SECRET })
})
after(() => bench.close())
beforeEach(() => writeFileSync(bench.log, ''))

const logged = () => readFileSync(bench.log, 'utf8').split('\n').slice(0, -1)

/** What our filter finds in the log, with real Fail2Ban. */
async function found(mode = 'normal'): Promise<string[]> {
  const filter = `${resolve('filter.d/fortigate.conf')}[mode=${mode}]`
  const { code, stdout, stderr } = await run('fail2ban-regex', ['-o', '<ip>', bench.log, filter])
  assert.ok(code === 0 || code === 1 || code === 255, stderr)
  return stdout.split('\n').filter((line) => /^[\da-f.:]+$/.test(line))
}

const SHAPES: Shape[] = ['raw', 'form', 'encoded', 'fields', 'log', 'unescaped']
const EVENTS: [string, string][] = [
  ['sslvpn', SSLVPN_FAILED.v5({ remip: TRUE, user: 'bob' })],
  ['sslvpn', SSLVPN_FAILED.v6({ remip: TRUE, user: 'bob' })],
  ['sslvpn', SSLVPN_FAILED.v7({ remip: TRUE, user: 'bob' })],
  ['ipsec', ipsecFailed({ remip: TRUE })],
  ['ipsec', ipsecFailed({ remip: TRUE }, '0101037125')],
  ['ipsec', dialUpFailed({ remip: TRUE }, '0101037121')],
  ['ipsec', dialUpFailed({ remip: TRUE })],
  ['admin', adminFailed({ remip: TRUE, user: 'bob' })],
  ['admin', adminFailed5({ remip: TRUE, user: 'bob' })],
]

test('a dial-up that fails counts once, and one that our own device began does not', async () => {
  const negotiation = dialUpFailed({ remip: TRUE, user: 'N/A' })
  assert.equal(await device.post(negotiation.replace('AUTH', 'SA_INIT')), 204)
  assert.equal(await device.post(negotiation.replace('responder', 'initiator')), 204)
  assert.deepEqual(logged(), [])
  assert.equal(await device.post(negotiation), 204)
  assert.equal(await device.post(dialUpFailed({ remip: TRUE, user: 'backup' })), 204)
  assert.match(
    logged().join('\n'),
    /^\S+ fortigate: ipsec failed.*\n.* decoy-login .* user=backup /,
  )
})

test('what stands before the first field is no part of the log', async () => {
  const [v5, v7] = [SSLVPN_FAILED.v5({ remip: TRUE }), SSLVPN_FAILED.v7({ remip: TRUE })]
  const bodies = [`1: ${v7}`, `<189>${v7}`, `Message meets Alert condition\r\n${v5}`]
  for (const body of bodies) {
    assert.equal(await device.post(body), 204, body)
    assert.equal(await device.post(body, 'log'), 204, body)
  }
  assert.deepEqual(await found(), Array(6).fill(TRUE))
})

test('whatever somebody types as his name, the address that the device says is banned', async () => {
  const makers = [SSLVPN_FAILED.v5, SSLVPN_FAILED.v7, adminFailed, adminFailed5, dialUpFailed]
  const names = ['CORP\\bob', 'CORP\\uma', 'a"b', 'a\\', 'a\tb', 'a" b', 'a","remip":"198.51.100.7']
  for (const make of makers) {
    for (const shape of SHAPES) {
      for (const user of names) {
        writeFileSync(bench.log, '')
        const log = make({ remip: TRUE, user })
        assert.equal(await device.post(log, shape), 204, `${shape} ${log}`)
        assert.match(logged().join(), / remip=203\.0\.113\.7 [^,]*$/, `${shape} ${log}`)
      }
    }
  }
  assert.equal(
    await device.post(SSLVPN_FAILED.v7({ remip: '2001:db8::7', user: 'x" remip=1.2.3.4' })),
    204,
  )
  assert.deepEqual((await found()).at(-1), '2001:db8::7')
  const metrics = await (await fetch(`${bench.url}/metrics`, { headers: LOGIN })).text()
  assert.match(metrics, /result="written",what="sslvpn, unclear name"/)
})
for (const shape of SHAPES) {
  test(`every kind of failure arrives as ${shape}, in one line that the filter finds`, async () => {
    for (const [kind, log] of EVENTS) {
      assert.equal(await device.post(log, shape), 204, log)
      assert.match(
        logged().at(-1) ?? '',
        new RegExp(
          `^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\+00:00 fortigate: ${kind} failed-login remip=203\\.0\\.113\\.7 user=`,
        ),
      )
    }
    assert.equal(logged().length, EVENTS.length)
    assert.deepEqual(await found(), Array(EVENTS.length).fill(TRUE))
  })
}

test('IPv6 sources, names with blanks and quotes of other scripts stay one safe line', async () => {
  const log = SSLVPN_FAILED.v7({
    remip: '2001:DB8::7',
    user: 'Jos\u00e9 d\u2019Arc & S\u00f6hne=1',
  })
  assert.equal(await device.post(log), 204)
  assert.match(
    logged()[0] ?? '',
    / remip=2001:db8::7 user=Jos%c3%a9%20d%e2%80%99Arc%20%26%20S%c3%b6hne%3d1 /,
  )
  assert.deepEqual(await found(), ['2001:db8::7'])
})

test('a decoy name is a hit for the decoy filter, the others are not', async () => {
  await device.post(SSLVPN_FAILED.v7({ remip: TRUE, user: 'BACKUP' }))
  await device.post(SSLVPN_FAILED.v7({ remip: VICTIM, user: 'backup2' }))
  assert.deepEqual(await found('decoy'), [TRUE])
  assert.deepEqual(await found(), [TRUE, VICTIM])
})

test('a decoy hit counts whatever its reason', async () => {
  const reason = 'sslvpn_login_password_expired'
  await device.post(SSLVPN_FAILED.v7({ remip: TRUE, user: 'backup', reason }))
  assert.equal(logged().length, 1)
})

test(`${CORPUS.length} hostile bodies: no address is planted, and the filter finds exactly the true ones`, async (t) => {
  assert.ok(CORPUS.length >= 60)
  const wrong: string[] = []
  let written = 0
  for (const { name, body, type = 'text/plain', headers, status } of CORPUS) {
    const before = logged().length
    const all = { 'content-type': type, 'x-webhook-token': SECRET, ...headers }
    const answer = await fetch(`${bench.url}/receive-logs`, {
      method: 'POST',
      body: typeof body === 'string' ? body : new Uint8Array(body),
      headers: all,
    }).catch((error) => error.cause)
    const lines = logged().slice(before)
    written += lines.length
    if (answer.status !== status) wrong.push(`${name}: ${answer.status ?? answer}, not ${status}`)
    if (lines.length > 1 || lines.some((line) => !line.includes(` remip=${TRUE} `))) {
      wrong.push(`${name}: planted ${lines.join(' | ')}`)
    }
  }
  assert.deepEqual(wrong, [])
  const addresses = await found()
  t.diagnostic(
    `${CORPUS.length} bodies, ${written} true failures among them, all found by the filter`,
  )
  assert.ok(written >= 20)
  assert.deepEqual(addresses, Array(written).fill(TRUE))
  assert.ok(!readFileSync(bench.log, 'utf8').includes('remip=198.'))
})

test('the filter does not take a line that is not exactly ours', async () => {
  const good = `2026-11-20T14:20:05+00:00 fortigate: sslvpn failed-login remip=${VICTIM} user=a reason=- device=- devtime=-`
  const lines = [
    ` ${good}`,
    `x${good}`,
    `${good} x`,
    good.replace('user=a', 'user=a b'),
    good.replace('user=a', 'user=a=b'),
    good.replace('sslvpn', 'x'),
    good.replace('failed-login', 'tunnel-up'),
    good.replace(VICTIM, `${VICTIM}.9`),
    good.replace(VICTIM, `${VICTIM} remip=1.2.3.4`),
    good.replace('2026-11-20T14:20:05+00:00 ', ''),
  ]
  writeFileSync(bench.log, `${lines.join('\n')}\n`)
  assert.deepEqual(await found(), [])
  writeFileSync(bench.log, `${good}\n`)
  assert.deepEqual(await found(), [VICTIM])
})

test('10 MB sent for ever is cut off, and the server stays small and alive', async (t) => {
  const { hostname, port } = new URL(bench.url)
  const flood = () =>
    new Promise<number>((done) => {
      const socket = connect(Number(port), hostname)
      let sent = 0
      const chunk = Buffer.alloc(65_536, 97)
      socket.on('error', () => {}).resume()
      socket.on('close', () => done(sent))
      socket.write(
        `POST /receive-logs HTTP/1.1\r\nHost: x\r\nX-Webhook-Token: ${SECRET}\r\nTransfer-Encoding: chunked\r\n\r\n`,
      )
      const more = () => {
        if (socket.destroyed) return
        sent += chunk.length
        socket.write(Buffer.concat([Buffer.from('10000\r\n'), chunk, Buffer.from('\r\n')]), () =>
          setImmediate(more),
        )
      }
      more()
    })
  const began = Date.now()
  const sent = await Promise.all(Array.from({ length: 8 }, flood))
  t.diagnostic(
    `cut off after ${Date.now() - began} ms and ${Math.round(Math.max(...sent) / 1e6)} MB`,
  )
  assert.ok(Date.now() - began < 20_000)
  assert.equal(await device.post(SSLVPN_FAILED.v7({ remip: TRUE })), 204)
})

test('a log that cannot be written is 503, shown on the page, and over when it can be', async () => {
  rmSync(bench.log)
  mkdirSync(bench.log)
  assert.equal(await device.post(SSLVPN_FAILED.v7({ remip: TRUE })), 503)
  const page = async () => (await fetch(bench.url, { headers: LOGIN })).text()
  assert.match(await page(), /Failed logins are lost/)
  rmSync(bench.log, { recursive: true })
  assert.equal(await device.post(SSLVPN_FAILED.v7({ remip: TRUE })), 204)
  assert.doesNotMatch(await page(), /Failed logins are lost/)
})

test('a disk that fills up in the middle of a line leaves no part of it, and goes on when there is room', async (t) => {
  const folder = join(bench.folder, 'small')
  mkdirSync(folder)
  assert.equal((await run('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', folder])).code, 0)
  const small = openBench({ webhook: { log_file: join(folder, 'log') } })
  t.after(async () => {
    await small.close()
    await run('umount', [folder])
  })
  writeFileSync(small.list, '')
  await small.startFeed()
  const sender = new FortiGate({ server: small.url, secret: SECRET })
  const log = SSLVPN_FAILED.v7({ remip: TRUE })
  let taken = 0
  while ((await sender.post(log)) === 204) taken++
  assert.equal(await sender.post(log), 503, 'still full')
  const lines = readFileSync(join(folder, 'log'), 'utf8').split('\n')
  assert.equal(lines.length, taken + 1)
  assert.equal(lines.at(-1), '', 'a part of a line is left')
  writeFileSync(join(folder, 'log'), '')
  assert.equal(await sender.post(log), 204)
})

test('who has not the secret is counted, but is no sign that a device still posts', async () => {
  const quiet = openBench()
  try {
    writeFileSync(quiet.list, '')
    await quiet.startFeed()
    const page = async () => (await fetch(quiet.url, { headers: LOGIN })).text()
    const stranger = new FortiGate({ server: quiet.url, secret: 'a guess of mine' })
    assert.equal(await stranger.post(SSLVPN_FAILED.v7({ remip: TRUE })), 401)
    assert.match(await page(), /none yet, counted since[\s\S]*who asks/)
    const known = new FortiGate({ server: quiet.url, secret: SECRET })
    assert.equal(await known.post(tunnelUp({ remip: TRUE })), 204)
    assert.match(await page(), /the last one \d+ s ago, counted since/)
  } finally {
    await quiet.close()
  }
})

test('a rotated log is written anew', async () => {
  await device.post(SSLVPN_FAILED.v7({ remip: TRUE }))
  renameSync(bench.log, `${bench.log}.1`)
  await device.post(SSLVPN_FAILED.v7({ remip: TRUE }))
  assert.equal(logged().length, 1)
})

test('the page counts what became of the logs', async () => {
  await device.post(tunnelUp({ remip: VICTIM }))
  const text = await (await fetch(`${bench.url}/metrics`, { headers: LOGIN })).text()
  assert.match(text, /received_total\{result="ignored",what="not a failure"\} \d+/)
  assert.match(text, /received_total\{result="refused",what="a key that comes twice"\} \d+/)
})

let other: Bench | undefined
afterEach(async () => {
  await other?.close()
  other = undefined
})

async function start(webhook: Record<string, unknown>): Promise<FortiGate> {
  other = openBench({ webhook })
  writeFileSync(other.list, '')
  await other.startFeed()
  return new FortiGate({ server: other.url, secret: SECRET })
}

test('without a secret everything is 403', async () => {
  const gate = await start({ secret: undefined })
  assert.equal(await gate.post(SSLVPN_FAILED.v7({ remip: TRUE })), 403)
})

test('allow_from lets in those and refuses others before it looks at the token', async () => {
  const inside = await start({ allow_from: ['127.0.0.0/8'] })
  assert.equal(await inside.post(SSLVPN_FAILED.v7({ remip: TRUE })), 204)
  await other?.close()
  const outside = await start({ allow_from: ['198.51.100.0/24'] })
  assert.equal(await outside.post(SSLVPN_FAILED.v7({ remip: TRUE })), 403)
})

test('events that are not selected and reasons that are left out are not written', async () => {
  const gate = await start({ events: ['admin'], ignore_reasons: ['passwd_invalid'] })
  assert.equal(await gate.post(SSLVPN_FAILED.v7({ remip: TRUE })), 204)
  assert.equal(await gate.post(adminFailed({ remip: TRUE })), 204)
  assert.throws(() => readFileSync(other?.log ?? ''), /ENOENT/)
  assert.equal(await gate.post(adminFailed({ remip: TRUE }).replace('passwd_', 'name_')), 204)
  assert.equal(readFileSync(other?.log ?? '', 'utf8').split('\n').length, 2)
})

test('the secret may come from a file, another header may carry it', async () => {
  const file = join(bench.folder, 'token')
  writeFileSync(file, `${SECRET}\n`)
  chmodSync(file, 0o600)
  const gate = await start({ secret: undefined, secret_file: file, header: 'Authorization' })
  assert.equal(await gate.post(SSLVPN_FAILED.v7({ remip: TRUE })), 401)
  const answer = await fetch(`${other?.url}/receive-logs`, {
    method: 'POST',
    body: SSLVPN_FAILED.v7({ remip: TRUE }),
    headers: { authorization: SECRET },
  })
  assert.equal(answer.status, 204)
})
