import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Browser, chromium, type Page } from 'playwright-core'
import { type Bench, openBench, PASS, SECRET } from '../lib/fortigate.ts'
import { adminFailed, FortiGate, SSLVPN_FAILED, tunnelUp } from '../simulators/fortigate.ts'

// The distribution's browser, which fetches nothing by itself.
const CHROMIUM = {
  executablePath: '/usr/bin/chromium',
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
}
const SHOTS = process.env.F2B_SHOTS

let bench: Bench
let browser: Browser
before(async () => {
  bench = openBench({ top: { owner: 'web1' } })
  writeList('')
  writeFileSync(join(bench.folder, 'activity.json'), yesterday())
  await bench.startFeed()
  writeList()
  const device = new FortiGate({ server: bench.url, user: 'fortigate', pass: PASS, secret: SECRET })
  for (let i = 0; i < 4; i++) await device.pull()
  for (let i = 0; i < 9; i++) await device.post(SSLVPN_FAILED.v7({ remip: `203.0.113.${i}` }))
  await device.post(adminFailed({ remip: '203.0.113.7' }))
  await device.post(tunnelUp({ remip: '203.0.113.7' }))
  await device.post('nonsense')
  browser = await chromium.launch(CHROMIUM)
})
after(async () => {
  await browser?.close()
  await bench.close()
})

function writeList(more?: string): void {
  const end = (seconds: number) => Math.floor(Date.now() / 1000) + seconds
  const lines = Array.from({ length: 60 }, (_, i) => {
    const jail = ['fortigate', 'sshd', 'postfix-sasl', 'fortigate-decoy'][i % 4]
    return `203.0.113.${i} # ${jail} ${end(600 + i * i * 97)} ${i % 3 ? 'web1' : 'mail2'}\n`
  })
  const own = '198.51.100.0/26\n2001:db8:77::5 # fortigate 0 web1\n203.0.113.9 # sshd 0 web3\n'
  writeFileSync(bench.list, more ?? lines.join('') + own)
}

function yesterday(): string {
  const hour = Math.floor(Date.now() / 3_600_000)
  const bans = [3, 1, 0, 0, 2, 5, 9, 14, 8, 4, 3, 6, 7, 2, 1, 0, 0, 4, 12, 23, 11, 6, 5]
  const hours = bans.map((count, i) => [hour - 23 + i, { bans: count, logins: count * 4 }])
  return JSON.stringify({ clients: [], hours })
}

async function open(path = '/', options = {}): Promise<{ page: Page; trouble: string[] }> {
  const context = await browser.newContext({
    httpCredentials: { username: 'fortigate', password: PASS },
    viewport: { width: 1100, height: 900 },
    ...options,
  })
  const page = await context.newPage()
  const trouble: string[] = []
  page.on('console', (message) => trouble.push(message.text()))
  page.on('pageerror', (error) => trouble.push(error.message))
  page.on('request', (request) => {
    if (!request.url().startsWith(bench.url)) trouble.push(`foreign ${request.url()}`)
  })
  await page.goto(bench.url + path)
  return { page, trouble }
}

/** What a reader sees: rows on lines, cells apart. */
async function textOf(page: Page): Promise<string> {
  return (await page.evaluate("document.querySelector('main').innerText")) as string
}

async function shoot(page: Page, name: string): Promise<void> {
  if (!SHOTS) return
  mkdirSync(SHOTS, { recursive: true })
  await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true })
}

test('shows every lease with jail, server and remaining time, and nothing foreign is loaded', async () => {
  const { page, trouble } = await open()
  assert.equal(await page.title(), 'Blocked by web1')
  const text = await textOf(page)
  assert.match(text, /All is well/)
  assert.match(text, /Blocked now\s+62\s+61 IPv4, 1 IPv6/)
  assert.match(text, /2001:db8:77::5\s+fortigate\s+web1\s+for ever/)
  assert.match(text, /198\.51\.100\.0\/26\s+by hand\s+for ever/)
  assert.match(text, /203\.0\.113\.9\s+sshd\s+mail2\s+2 h/)
  assert.match(text, /203\.0\.113\.9\s+sshd\s+web3\s+for ever/)
  assert.match(text, /127\.0\.0\.1\s+0 s ago|127\.0\.0\.1\s+\d+ s ago/)
  assert.match(text, /written\s+sslvpn\s+9/)
  await shoot(page, 'light')
  assert.deepEqual(trouble, [])
})

test('search finds by address, jail and server, and can be undone', async () => {
  const { page } = await open()
  const find = async (words: string) => {
    await page.getByRole('searchbox').fill(words)
    await page.getByRole('button', { name: 'Search' }).click()
    return page.locator('.bans tbody tr').count()
  }
  assert.equal(await find('2001:DB8'), 1)
  assert.equal(await find('postfix'), 15)
  assert.equal(await find('web3'), 2, 'both holders of the one address')
  assert.equal(await find('by hand'), 1)
  assert.equal(await find('nowhere'), 0)
  assert.match(await textOf(page), /Nothing matches/)
  await page.getByRole('link', { name: 'show all' }).click()
  assert.equal(await page.locator('.bans tbody tr').count(), 63)
})

test('what comes from outside is text on the page, never markup', async () => {
  const evil = '"><script>document.title="owned"</script>'
  await fetch(`${bench.url}/blocked-ips`, {
    headers: {
      'user-agent': `<img src=x onerror="document.title='owned'">`,
      authorization: `Basic ${Buffer.from(`fortigate:${PASS}`).toString('base64')}`,
    },
  })
  const { page, trouble } = await open(`/?q=${encodeURIComponent(evil)}`)
  assert.equal(await page.title(), 'Blocked by web1')
  assert.equal(await page.getByRole('searchbox').inputValue(), evil)
  assert.equal(await page.locator('script, img').count(), 0)
  const from = await page.locator('.devices code').first().boundingBox()
  assert.ok((from?.height ?? 99) < 30, 'no program name squeezes the address into two lines')
  assert.deepEqual(trouble, [])
})

test('dark: dark ground, and the text keeps its contrast', async () => {
  const { page } = await open('/', { colorScheme: 'dark' })
  for (const selector of ['body', '.tiles p', 'h2', 'td', 'thead th', 'button', '.good']) {
    assert.ok(
      (await contrast(page, selector)) >= 4.5,
      `${selector} ${await contrast(page, selector)}`,
    )
  }
  await shoot(page, 'dark')
  const light = await open()
  for (const selector of ['body', '.tiles p', 'h2', 'td', 'thead th', 'button', '.good']) {
    assert.ok((await contrast(light.page, selector)) >= 4.5, `light ${selector}`)
  }
})

test('a phone needs no sideways scrolling, no ban takes more than two lines', async () => {
  const phone = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true }
  const { page } = await open('/', phone)
  const wide = await page.evaluate('document.documentElement.scrollWidth - innerWidth')
  assert.equal(wide, 0)
  const name = "getComputedStyle(document.querySelector('.pair td'), '::before').content"
  assert.equal(await page.evaluate(name), '"From"')
  const row = await page.locator('.bans tbody tr').first().boundingBox()
  assert.ok((row?.height ?? 0) < 70, 'a ban takes two lines')
  await shoot(page, 'phone')
})

test('an alarm comes first, in the title too', async () => {
  writeList('203.0.113.5\nnonsense\n0.0.0.0/0\n')
  const { page } = await open('/?refresh')
  assert.equal(await page.title(), '(2) Blocked by web1')
  assert.equal(await page.getByRole('alert').count(), 2)
  assert.match(await page.content(), /http-equiv="refresh"/)
  assert.match(await textOf(page), /0\.0\.0\.0\/0\s+by hand\s+not served: protected/)
  assert.ok((await contrast(page, '.bad')) >= 4.5)
  await shoot(page, 'alarm')
  writeList()
})

/** WCAG contrast of a text against the ground that it stands on. */
async function contrast(page: Page, selector: string): Promise<number> {
  return (await page.evaluate(`(() => {
    const rgb = (text) => text.match(/[\\d.]+/g).map(Number)
    const light = (text) => rgb(text).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
    let node = document.querySelector(${JSON.stringify(selector)})
    const ink = light(getComputedStyle(node).color)
    while (/, 0\\)$|transparent/.test(getComputedStyle(node).backgroundColor)) node = node.parentElement
    const ground = light(getComputedStyle(node).backgroundColor)
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05)
  })()`)) as number
}
