import assert from 'node:assert/strict'
import test from 'node:test'
import * as v from 'valibot'
import { parseAddress } from '../../../scripts/lib/address.ts'
import { Failure } from '../../../scripts/lib/failure.ts'
import { type SophosXg, sophosxg } from '../../../scripts/lib/settings/sophosxg.ts'
import { type Found, judge, readAnswer } from '../../../scripts/lib/sophosxg/answer.ts'
import { planLists, readLists } from '../../../scripts/lib/sophosxg/lists.ts'
import { hostEntity, nameOf, readHost } from '../../../scripts/lib/sophosxg/objects.ts'
import { buildRequest, describeAsk } from '../../../scripts/lib/sophosxg/request.ts'

const ENTRY = {
  url: 'https://fw1.example:4444/webconsole/APIController',
  user: 'apiuser',
  pass: 'secret',
}

function settingsOf(more: Record<string, unknown> = {}): SophosXg {
  return v.parse(sophosxg, { ...ENTRY, ...more })[0] as SophosXg
}

function leaseOf(text: string, jail = 'sshd', owner = 'web1', expires = 0) {
  return { address: parseAddress(text), jail, owner, expires }
}

/** An object as the box gives back what was sent. */
function foundFrom(name: string, lease: ReturnType<typeof leaseOf>, groups: string[]): Found {
  const entity = hostEntity(name, lease, groups) as Record<string, string>
  return {
    name,
    family: entity.IPFamily ?? '',
    type: entity.HostType ?? '',
    description: entity.Description ?? '',
    groups,
    address: entity.IPAddress ?? '',
    subnet: entity.Subnet ?? '',
    list: [],
  }
}

test('nameOf() carries prefix, jail, address and owner', () => {
  assert.equal(nameOf('f2b_', leaseOf('192.0.2.7')), 'f2b_sshd_192.0.2.7@web1')
  assert.equal(nameOf('f2b_', leaseOf('2001:db8::/48')), 'f2b_sshd_2001:db8::/48@web1')
})

test('nameOf() hashes what is longer than the box takes, and never two to the same', () => {
  const long = 'a-jail-with-quite-a-long-name-that-goes-on-and-on'
  const address = '2001:db8:1111:2222:3333:4444:5555:6666'
  const names = ['web1', 'web2'].flatMap((owner) =>
    [long, `${long}2`].map((jail) => nameOf('f2b_hostname1_', leaseOf(address, jail, owner))),
  )
  assert.equal(new Set(names).size, 4)
  for (const name of names) assert.equal(name.length, 60)
})

test('readHost() knows its own again, however it is named', () => {
  const settings = settingsOf()
  for (const jail of [
    'sshd',
    'a_b',
    'x@y',
    'a-jail-with-quite-a-long-name-that-goes-on-and-on-and-on',
  ]) {
    const lease = leaseOf('2001:db8::7', jail, 'web1', 4_000_000_000)
    const name = nameOf('f2b_', lease)
    const host = readHost(settings, 'web1', foundFrom(name, lease, ['f2b_blockings_v6']))
    assert.deepEqual(host?.lease, lease)
    assert.equal(host?.intact, true)
    assert.equal(readHost(settings, 'web2', foundFrom(name, lease, [])), undefined)
  }
})

test('readHost() tells nested prefixes and foreign owners apart', () => {
  const lease = leaseOf('192.0.2.7')
  const nested = foundFrom(nameOf('f2b_hostname1_', lease), lease, ['f2b_blockings'])
  assert.equal(readHost(settingsOf(), 'web1', nested), undefined)
  assert.ok(readHost(settingsOf({ iphost_prefix: 'f2b_hostname1_' }), 'web1', nested))
  const plain = foundFrom(nameOf('f2b_', lease), lease, ['f2b_blockings'])
  assert.equal(readHost(settingsOf({ iphost_prefix: 'f2b_s' }), 'web1', plain), undefined)
})

test('readHost() reads what a firmware without descriptions leaves', () => {
  const lease = leaseOf('192.0.2.7', 'a_b')
  const bare = { ...foundFrom(nameOf('f2b_', lease), lease, ['f2b_blockings']), description: '' }
  assert.deepEqual(readHost(settingsOf(), 'web1', bare)?.lease, lease)
  assert.equal(readHost(settingsOf(), 'web2', bare), undefined)
  assert.equal(readHost(settingsOf(), 'web1', { ...bare, groups: [] }), undefined)
})

test('planLists() touches as few lists as possible', () => {
  const settings = settingsOf()
  const list = (number: number, members: string[]): Found => ({
    ...foundFrom('', leaseOf('192.0.2.7'), ['f2b_blockings']),
    name: `f2b_list4_${number}@web1`,
    type: 'IPList',
    list: members,
  })
  const full = Array.from({ length: 1000 }, (_, i) => `10.0.${i >> 8}.${i & 255}`)
  const lists = readLists(settings, 'web1', [list(2, ['10.9.0.1']), list(1, full)])
  assert.deepEqual(planLists(settings, 'web1', lists, [...full, '10.9.0.1']), [])
  const [one, ...more] = planLists(settings, 'web1', lists, [...full, '10.9.0.1', '10.9.0.2'])
  assert.deepEqual(
    [one?.Name, one?.ListOfIPAddresses, more.length],
    ['f2b_list4_2@web1', '10.9.0.1,10.9.0.2', 0],
  )
  const [freed] = planLists(settings, 'web1', lists, full)
  assert.equal(freed?.ListOfIPAddresses, '192.0.2.0', 'a list is never empty')
})

test('buildRequest() escapes every value and describeAsk() never shows the login', () => {
  const ask = {
    verb: 'Get',
    kind: 'IPHost',
    filter: { key: 'Name', criteria: '=', value: 'a&b' },
  } as const
  const xml = buildRequest({ user: 'a<b', pass: `&<>"'` }, ask)
  assert.match(xml, /<Username>a&lt;b<\/Username><Password>&amp;&lt;&gt;&quot;&apos;<\/Password>/)
  assert.match(xml, /<key name="Name" criteria="=">a&amp;b<\/key>/)
  assert.equal(describeAsk(ask), 'Get IPHost Name = "a&b"')
})

test('readAnswer() keeps every status of every object, in order', () => {
  const body = wrap(`<IPHost><Status code="200">a</Status></IPHost>
    <IPHost><Status code="502">b</Status><Status>c</Status></IPHost>`)
  const codes = readAnswer(body, 'IPHost', 'secret').statuses.map((status) => status.code)
  assert.deepEqual(codes, [200, 502, undefined])
})

test('readAnswer() reads names as they are, not as numbers', () => {
  const body = wrap('<IPHost><Name>007</Name></IPHost><IPHost><Name>1e5</Name></IPHost>')
  const names = readAnswer(body, 'IPHost', 'secret').found.map((host) => host.name)
  assert.deepEqual(names, ['007', '1e5'])
})

test('readAnswer() refuses what only looks like an answer', () => {
  const trials: [string, number][] = [
    ['', 76],
    ['<html>Authentication Successful</html>', 76],
    ['<Response></Response>', 76],
    ['<Response><Login/></Response>', 76],
    [wrap('<IPHost><Status code="529">x</Status></IPHost>'), 76],
    [wrap('<Wrong><Status code="529">Input request module is Invalid</Status></Wrong>'), 76],
    ['<Response><Login><status>Authentication Failure</status></Login></Response>', 77],
    ['<Response><Login><status>Authentication Unsuccessful</status></Login></Response>', 77],
    ['<Response><Login><status>Success will come</status></Login></Response>', 77],
    ['<Response><Status code="534">API OPERATIONS are not allowed.</Status></Response>', 77],
    [wrap('<IPHost><Status code="535">x</Status></IPHost>'), 77],
    [wrap('<IPHost><Name>cut').replace('</Response>', ''), 76],
  ]
  for (const [body, code] of trials) {
    assert.throws(
      () => readAnswer(body, 'IPHost', 'secret'),
      (error) => error instanceof Failure && error.code === code,
      body,
    )
  }
})

test('judge() believes no status that is not known', () => {
  const status = (code: number | undefined) => judge({ code, text: '', nothing: false })
  assert.deepEqual([200, 202, 216].map(status), ['done', 'done', 'done'])
  for (const code of [204, 218, 301, 501, 528, 599]) assert.equal(status(code), 'refused')
  for (const code of [undefined, 201, 217, 500]) assert.equal(status(code), 'unsure')
})

test('the section sophosxg refuses what the box or the wire cannot take', () => {
  const wrong: Record<string, unknown>[] = [
    { url: 'http://fw1:4444/webconsole/APIController' },
    { url: 'https://user:pass@fw1:4444/webconsole/APIController' },
    { url: 'https://fw1:4444/' },
    { iphost_prefix: '#f2b_' },
    { iphost_prefix: 'a,b' },
    { iphost_prefix: 'x'.repeat(31) },
    { iphostgroup_name: 'x'.repeat(61) },
    { iphostgroup_name: 'x'.repeat(58) },
    { iphostgroup_name: 'same', iphostgroup_name_v6: 'same' },
    { pass: 'a\nb' },
    { pass: 'a\u0001b' },
    { pass: undefined },
    { pin: 'AB:CD' },
    { mode: 'list' },
    { verifySslCertificate: 'yes' },
    { colour: 'red' },
  ]
  for (const more of wrong) {
    assert.equal(v.safeParse(sophosxg, { ...ENTRY, ...more }).success, false, JSON.stringify(more))
  }
  assert.equal(v.safeParse(sophosxg, [ENTRY, ENTRY]).success, false, 'one name twice')
  assert.equal(v.parse(sophosxg, ENTRY)[0]?.name, 'fw1.example')
})

function wrap(body: string): string {
  return `<?xml version="1.0"?><Response><Login><status>Authentication Successful</status></Login>${body}</Response>`
}
