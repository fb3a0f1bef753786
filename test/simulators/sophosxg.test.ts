// The simulator is only worth what it refuses: its quirks, by their numbers in facts/sophos.md.
import assert from 'node:assert/strict'
import { request } from 'node:https'
import test from 'node:test'
import { NO_FAULTS } from './sophosxg/faults.ts'
import { handle } from './sophosxg/protocol.ts'
import { addGroup, addHost, type Box, groupsWith, seedBox } from './sophosxg/state.ts'
import { SophosSimulator } from './sophosxg.ts'

const LOGIN = '<Login><Username>apiuser</Username><Password>secret</Password></Login>'

function box(): Box {
  const made = seedBox({ user: 'apiuser', pass: 'secret' })
  addGroup(made, 'g4', 'IPv4')
  addGroup(made, 'g6', 'IPv6')
  return made
}

/** Asks a box and returns what stands behind the login. */
function ask(to: Box, body: string, faults: Partial<typeof NO_FAULTS> = {}): string {
  const { xml } = handle(to, `<Request>${LOGIN}${body}</Request>`, { ...NO_FAULTS, ...faults })
  return xml.replace(/^.*<\/Login>/s, '').replace('</Response>', '')
}

function codes(xml: string): string[] {
  return [...xml.matchAll(/<Status(?: code="(\d+)")?>/g)].map((match) => match[1] ?? 'none')
}

const host = (name: string, more = '', address = '192.0.2.7') =>
  `<IPHost><Name>${name}</Name><IPFamily>IPv4</IPFamily><HostType>IP</HostType>${more}<IPAddress>${address}</IPAddress></IPHost>`
const groups = (...names: string[]) =>
  `<HostGroupList>${names.map((name) => `<HostGroup>${name}</HostGroup>`).join('')}</HostGroupList>`

interface Sent {
  method: string
  path: string
  body?: string
  type?: string
}

function send(sim: SophosSimulator, sent: Sent): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const { method, path, type } = sent
    const headers = type ? { 'content-type': type } : {}
    const options = {
      method,
      path,
      headers,
      port: sim.port,
      host: '127.0.0.1',
      rejectUnauthorized: false,
    }
    const asked = request(options, (response) => {
      let body = ''
      response.on('data', (chunk) => {
        body += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
    })
    asked.on('error', reject)
    asked.end(sent.body)
  })
}

const API = '/webconsole/APIController'
const FORM = 'application/x-www-form-urlencoded'

test('quirks 1 and 2: one path, four ways to send, a raw ampersand cuts', async () => {
  const sim = await new SophosSimulator().listen()
  const xml = `<Request>${LOGIN}<Get><IPHostGroup/></Get></Request>`
  const encoded = encodeURIComponent(xml)
  const part = `--x\r\nContent-Disposition: form-data; name="reqxml"\r\n\r\n${xml}\r\n--x--\r\n`
  const good: Sent[] = [
    { method: 'GET', path: `${API}?reqxml=${encoded}` },
    { method: 'POST', path: API, type: FORM, body: `reqxml=${encoded.replaceAll('%20', '+')}` },
    { method: 'POST', path: API, type: 'multipart/form-data; boundary=x', body: part },
    { method: 'POST', path: `${API}?reqxml=${encoded}` },
  ]
  for (const sent of good) assert.match((await send(sim, sent)).body, /<Name>Servers<\/Name>/)
  const cut = `reqxml=${xml.replace('secret', 'a&amp;b')}`
  const { status, body } = await send(sim, { method: 'POST', path: API, type: FORM, body: cut })
  assert.deepEqual([status, codes(body)], [200, ['529']])
  assert.equal((await send(sim, { method: 'GET', path: '/' })).status, 404)
  await sim.close()
})

test('quirk 4: requests sent at once are served one after the other', async () => {
  const sim = await new SophosSimulator({ scale: 20 }).listen()
  const began = performance.now()
  const body = `reqxml=${encodeURIComponent(`<Request>${LOGIN}<Get><IPHost/></Get></Request>`)}`
  const sent = { method: 'POST', path: API, type: FORM, body }
  await Promise.all([send(sim, sent), send(sim, sent), send(sim, sent)])
  assert.ok(performance.now() - began >= 140, 'three times 1 s / 20')
  await sim.close()
})

test('quirks 6 to 9: the order of the checks, and what each answers', () => {
  const plain = (faults: Partial<typeof NO_FAULTS>, xml = `<Request>${LOGIN}</Request>`) =>
    handle(box(), xml, { ...NO_FAULTS, ...faults }).xml
  assert.match(
    plain({}),
    /<Login><status>Authentication Successful<\/status><\/Login><\/Response>$/,
  )
  for (const [faults, code] of [
    [{ apiOff: true }, '532'],
    [{ ipRefused: true }, '534'],
  ] as const) {
    const xml = plain({ ...faults, loginRefused: true })
    assert.deepEqual([codes(xml), xml.includes('<Login>')], [[code], false])
  }
  assert.match(
    plain({ loginRefused: true }),
    /<Login><status>Authentication Failure<\/status><\/Login><\/Response>$/,
  )
  const versioned = (version: string) => `<Request APIVersion="${version}">${LOGIN}</Request>`
  assert.match(plain({}, versioned('1900.1')), /There is no API Version/)
  assert.doesNotMatch(plain({}, versioned('2200.1')), /Status/)
  assert.deepEqual(codes(ask(box(), '<Get><IPHost/></Get>', { noRights: '535' })), ['535'])
})

test('quirks 10 to 12: unknown entities, letter case, encrypted passwords', () => {
  assert.equal(
    ask(box(), '<Get><Wrong/></Get>'),
    '<Wrong><Status code="529">Input request module is Invalid</Status></Wrong>',
  )
  assert.match(ask(box(), '<GET><IPHostGroup/></GET>'), /<Name>g4<\/Name>/)
  const coded = LOGIN.replace(
    '<Password>secret',
    '<Password passwordform="encrypt">encrypted:secret',
  )
  assert.match(handle(box(), `<Request>${coded}</Request>`, NO_FAULTS).xml, /Successful/)
})

test('quirks 13 to 16: what a Get finds and how it looks', () => {
  const made = box()
  assert.match(
    ask(made, '<Get><IPHost/></Get>'),
    /<Name>##ALL_RW<\/Name><IPFamily>IPv4<\/IPFamily><HostType>System Host<\/HostType><\/IPHost>/,
  )
  const key = (name: string, criteria: string, value: string) =>
    ask(
      made,
      `<Get><IPHost><Filter><key name="${name}" criteria="${criteria}">${value}</key><key name="Name" criteria="=">none</key></Filter></IPHost></Get>`,
    )
  assert.equal(key('Name', '=', 'Office LAN').match(/<IPHost /g)?.length, 1)
  assert.equal(key('Name', 'like', 'ALL_').match(/<IPHost /g)?.length, 2)
  assert.equal(key('Name', '!=', 'Office LAN').match(/<IPHost /g)?.length, 4)
  assert.equal(key('IPAddress', '=', '198.51.100.25').match(/<IPHost /g)?.length, 1)
  assert.equal(key('Description', '=', 'x').match(/<IPHost /g)?.length, 5, 'ignored')
  assert.equal(
    key('Name', '=', 'nobody'),
    '<IPHost transactionid=""><Status>No. of records Zero.</Status></IPHost>',
  )
  assert.equal(
    ask(
      made,
      '<Get><IPHostGroup><Filter><key name="Name" criteria="=">g4</key></Filter></IPHostGroup></Get>',
    ),
    '<IPHostGroup transactionid=""><Name>g4</Name><Description/><IPFamily>IPv4</IPFamily></IPHostGroup>',
  )
})

test('quirks 17 to 19, 23, 24: add, update and upsert', () => {
  const made = box()
  const set = (operation: string, inner: string, faults = {}) =>
    codes(ask(made, `<Set${operation && ` operation="${operation}"`}>${inner}</Set>`, faults))
  assert.deepEqual(set('update', host('a')), ['526'])
  assert.deepEqual(set('update', host('a'), { updateMissing: '200' }), ['200'])
  assert.equal(made.hosts.has('a'), false)
  assert.deepEqual(
    set('add', host('a  ', `<Description>x</Description>${groups('g4', 'Servers')}`)),
    ['200'],
  )
  assert.deepEqual(groupsWith(made, 'a'), ['Servers', 'g4'])
  assert.deepEqual(set('add', host('a')), ['502'])
  assert.deepEqual(set('', host('a', groups('g4'))), ['200'])
  assert.deepEqual(
    [groupsWith(made, 'a'), made.hosts.get('a')?.Description],
    [['g4'], ''],
    'full replace',
  )
  assert.deepEqual(set('', host('a', '<HostGroupList/>')), ['200'])
  assert.deepEqual(groupsWith(made, 'a'), [])
})

test('quirks 20 to 22: what is refused', () => {
  const set = (inner: string, faults = {}) =>
    codes(ask(box(), `<Set operation="add">${inner}</Set>`, faults))[0]
  const v6 = host('a', groups('g4'), '2001:db8::1').replace('IPv4', 'IPv6')
  const list = (items: string) =>
    host('a')
      .replace('>IP<', '>IPList<')
      .replace(/<IPAddress>.*<\/IPAddress>/, `<ListOfIPAddresses>${items}</ListOfIPAddresses>`)
  const thousand = Array.from({ length: 1001 }, (_, i) => `10.0.${i >> 8}.${i & 255}`)
  const wrong = [
    host('a', '', '300.1.1.1'),
    host('a', '', '2001:db8::1'),
    v6,
    host('x'.repeat(61)),
    host('#a'),
    host('a,b'),
    host('a', groups('nowhere')),
    host('a').replace('>IP<', '>Network<'),
    host('a').replace('>IP<', '>Thing<'),
    list(''),
    list(thousand.join(',')),
  ]
  for (const inner of wrong) assert.equal(set(inner), '501', inner)
  assert.equal(set(list(thousand.slice(1).join(','))), '200')
  assert.equal(set(host('a', groups('nowhere')), { unknownGroup: '500' }), '500')
  assert.equal(set(host('a', '', '198.51.100.25'), { sameAddress: '503' }), '503')
  assert.equal(codes(ask(box(), `<Set>${host('#Port1')}</Set>`))[0], '528')
})

test('quirks 25 to 29: what Remove does', () => {
  const made = box()
  const remove = (inner: string, faults = {}) =>
    codes(ask(made, `<Remove>${inner}</Remove>`, faults))
  addHost(
    made,
    { Name: 'a', Description: '', IPFamily: 'IPv4', HostType: 'IP', IPAddress: '192.0.2.1' },
    ['g4'],
  )
  addHost(made, {
    Name: 'b',
    Description: '',
    IPFamily: 'IPv4',
    HostType: 'IP',
    IPAddress: '192.0.2.2',
  })
  assert.deepEqual(remove('<IPHost><Name>a</Name><Name>b</Name><Name>c</Name></IPHost>'), [
    '504',
    '200',
    '526',
  ])
  assert.deepEqual(remove('<IPHost><Name>a</Name></IPHost>', { removeReferenced: '500' }), ['500'])
  assert.deepEqual(remove('<IPHost><Name>c</Name></IPHost>', { removeMissing: 'text' }), ['none'])
  assert.deepEqual(
    remove('<IPHostGroup><Name>g4</Name><HostList><Host>a</Host></HostList></IPHostGroup>'),
    ['200'],
  )
  assert.deepEqual(groupsWith(made, 'a'), [], 'emptied')
  assert.deepEqual(
    codes(ask(made, '<Set operation="update"><IPHostGroup><Name>g4</Name></IPHostGroup></Set>')),
    ['500'],
  )
  made.rules.add('g6')
  assert.deepEqual(remove('<IPHostGroup><Name>g6</Name></IPHostGroup>'), ['504'])
  assert.deepEqual(remove('<IPHost><Name>#Port1</Name></IPHost>'), ['528'])
})

test('quirks 30 and 31: many objects, odd statuses', () => {
  const made = box()
  const three = `<Set>${host('a')}${host('b', '', 'x')}${host('c')}</Set>`
  assert.deepEqual(codes(ask(made, three)), ['200', '501', '200'])
  assert.equal(made.hosts.has('c'), true, 'no rollback')
  const both = `<Set>${host('d')}</Set><Remove><IPHost><Name>d</Name></IPHost></Remove>`
  assert.deepEqual(codes(ask(made, both)), ['200', '200'])
  assert.deepEqual(codes(ask(made, both, { oneVerbOnly: true })), ['529'])
  assert.deepEqual(codes(ask(made, `<Set>${host('e')}</Set>`, { writeStatus: '217' })), ['217'])
  assert.equal(made.hosts.has('e'), true)
  assert.equal(ask(made, `<Set>${host('f')}</Set>`, { writeStatus: 'none' }), '')
  assert.deepEqual(codes(ask(made, `<Set>${host('g')}</Set>`, { writeIgnored: '201' })), ['201'])
  assert.equal(made.hosts.has('g'), false)
})
