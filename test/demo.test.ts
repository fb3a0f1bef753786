import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { describe, test } from 'node:test'
import { PROJECT } from './lib/lab.ts'
import { toSvg } from './lib/picture.ts'
import { waitUntil } from './lib/wait.ts'

const NAMESPACES = ['net', 'mnt', 'pid', 'uts']
const COMMAND = ['--import', 'tsx', `${PROJECT}/test/demo.ts`]

interface Played {
  code: number | null
  stdout: string
  stderr: string
}

/** Starts the demonstration in a pipe, as `npm run demo | cat` does. */
function start(...args: string[]): { child: ChildProcess; ended: Promise<Played> } {
  const child = spawn(process.execPath, [...COMMAND, ...args], { cwd: PROJECT })
  const played: Played = { code: null, stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      played[name] += text
    })
  }
  const ended = once(child, 'close').then(([code]) => Object.assign(played, { code }))
  return { child, ended }
}

/** What a demonstration could leave on this machine. Other labs may come and go meanwhile. */
function traces(): string[] {
  const accounts = ['passwd', 'group'].map((name) => readFileSync(`/etc/${name}`, 'utf8'))
  return [...accounts, readFileSync('/proc/self/mountinfo', 'utf8'), links()]
}

function links(): string {
  return readdirSync('/sys/class/net').sort().join(' ')
}

/** The namespaces of all processes that descend from one: the machines' among them. */
function namespacesBelow(root: number): Set<string> {
  const own = new Set(namespacesOf('self'))
  const below = processes().filter((id) => isBelow(id, root))
  return new Set(below.flatMap(namespacesOf).filter((namespace) => !own.has(namespace)))
}

function namespacesOf(id: string): string[] {
  return NAMESPACES.flatMap((kind) => {
    try {
      return [readlinkSync(`/proc/${id}/ns/${kind}`)]
    } catch {
      return [] // It ended meanwhile.
    }
  })
}

function isBelow(id: string, root: number): boolean {
  for (let at = id; Number(at) > 1; at = parentOf(at)) if (Number(at) === root) return true
  return false
}

function parentOf(id: string): string {
  try {
    return /^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${id}/status`, 'utf8'))?.[1] ?? '0'
  } catch {
    return '0'
  }
}

function processes(): string[] {
  return readdirSync('/proc').filter((id) => /^\d+$/.test(id))
}

function anyoneIn(namespaces: Set<string>): boolean {
  return processes().some((id) => namespacesOf(id).some((one) => namespaces.has(one)))
}

const FACTS = [
  /^ {3}1 Build four machines/,
  /^ {3}2 Set up both sides/,
  /✓ the firewall answers over SSH, .* [\d,]+ ms$/,
  /✓ attacker and neighbour reach both servers, connections +8 of 8$/,
  /web1: sshd.*: Invalid user test from 203\.0\.113\.101 /,
  /✓ IPv4: Fail2Ban decides \d+ ms after the log line; first packet dropped +[\d,]+ ms$/,
  /✓ IPv6: Fail2Ban decides \d+ ms after the log line; first packet dropped +[\d,]+ ms$/,
  /✓ attacker to web1 over IPv4 and IPv6, connections +0 of 2$/,
  /✓ attacker to web2 over IPv4 and IPv6, connections +0 of 2$/,
  /✓ neighbour to web1 over IPv4 and IPv6, connections +2 of 2$/,
  /✓ neighbour to web2 over IPv4 and IPv6, connections +2 of 2$/,
  /^ +203\.0\.113\.101 sshd \d{10} web1$/,
  /^ +2001:db8:a::101 sshd \d{10} web1$/,
  /restored 2 blocks in 1 chain$/,
  /✓ packets of the attacker that got through +0 of \d+$/,
  /✓ first packet through again, .* [\d,]+ ms$/,
  /✓ nobody is left to unban it: .* \d,\d{3} ms$/,
  /✓ processes and mounts left of them +0$/,
  /^ {2}✓ All of it for real: .*\d seconds in all\.$/,
]

/** What differs in the stories of the simulated appliances. */
const APPLIANCES = {
  mikrotik: {
    setUp: /logged in to 127\.0\.0\.1 as f2b, who may write the address list f2b/,
    refused:
      /fail2ban\.log: mikrotik: Cannot ban "203\.0\.113\.7" .* needs read, write and rest-api/,
    last: /✓ 198\.51\.100\.9 was blocked for +3 s\n +✓ calls of the router +1\n/,
  },
  opnsense: {
    setUp: /made the alias "f2b_web1"\n +the key for 127\.0\.0\.1 may read and change tables/,
    refused: /fail2ban\.log: opnsense: Cannot ban "203\.0\.113\.7" .* lacks the privilege "Diagn/,
    last: /✓ A real Fail2Ban and a simulated firewall\. \d+ seconds\.\n/,
  },
}

describe('demo', () => {
  test('tells the whole story, plain and aligned in a pipe, and leaves nothing behind', async () => {
    const before = traces()
    const { child, ended } = start()
    await waitUntil('a machine', () => namespacesBelow(child.pid ?? 0).size > 8, {
      timeout: 60_000,
    })
    const namespaces = namespacesBelow(child.pid ?? 0)
    const { code, stdout, stderr } = await ended
    assert.equal(code, 0, stdout + stderr)
    assert.equal(stderr, '')
    const lines = stdout.split('\n')
    // Each fact is found after the one before it.
    let at = 0
    for (const fact of FACTS) {
      const found = lines.findIndex((line, index) => index >= at && fact.test(line))
      assert.ok(found >= 0, `${fact} in\n${stdout}`)
      at = found
    }
    assert.doesNotMatch(stdout, /\x1b|\r/)
    const columns = lines.flatMap((line) =>
      / ✓ .* [\d,]+( ms| of \d+)$/.exec(line)?.[1] ? [line] : [],
    )
    const ends = columns.map((line) => line.replace(/ (ms|of \d+)$/, '').length)
    assert.equal(new Set(ends).size, 1, 'the numbers end in one column')
    await waitUntil('the end of all processes', () => !anyoneIn(namespaces))
    assert.deepEqual(traces(), before)
  })

  for (const [name, { setUp, refused, last }] of Object.entries(APPLIANCES)) {
    test(`blocks on ${name} with a real Fail2Ban, through restart, reboot and refusal`, async () => {
      const { code, stdout, stderr } = await start(name).ended
      assert.equal(code, 0, stdout + stderr)
      assert.equal(stderr, '')
      const facts = [
        setUp,
        /✓ from the log line to the block +[\d,]+ ms\n/,
        / set sshd unbanip 203\.0\.113\.7\n +✓ blocked: 2001:db8::7, 203\.0\.113\.7\n/,
        / set nginx unbanip 203\.0\.113\.7\n +✓ blocked: 2001:db8::7\n/,
        /fail2ban-client stop\n +✓ blocked: 2001:db8::7, 203\.0\.113\.8\n/,
        /fail2ban-client start\n +✓ blocked: 2001:db8::7, 203\.0\.113\.8\n/,
        /✓ blocked: nobody\n.*check\n.* was emptied, by a reboot perhaps: f2b-sync fills it\n/,
        /f2b-sync\n +added 2, extended 0, removed 0, unchanged 0\n/,
        /f2b-sync\n +added 0, extended 0, removed 0, unchanged 2\n/,
        refused,
        last,
      ]
      let rest = stdout
      for (const fact of facts) {
        const found = fact.exec(rest)
        assert.ok(found, `${fact} in\n${stdout}`)
        rest = rest.slice(found.index + found[0].length)
      }
    })
  }

  test('says where it was when it is interrupted, and cleans up', async () => {
    const { child, ended } = start()
    let shown = ''
    child.stdout?.on('data', (text: string) => {
      shown += text
    })
    await waitUntil('step 2', () => shown.includes('f2b-setup server'), { timeout: 60_000 })
    const namespaces = namespacesBelow(child.pid ?? 0)
    assert.ok(namespaces.size > 8)
    child.kill('SIGINT')
    const { code, stdout } = await ended
    assert.equal(code, 130)
    assert.match(
      stdout,
      /✗ Interrupted by SIGINT\n\n {2}✗ Step \d failed; everything is cleaned up/,
    )
    await waitUntil('the end of all processes', () => !anyoneIn(namespaces))
  })

  test('refuses a demonstration that does not exist, with the names of those that do', async () => {
    const { code, stdout, stderr } = await start('nosuch').ended
    assert.deepEqual([code, stdout], [64, ''])
    assert.match(stderr, /^demo: Unknown demonstration "nosuch"\n\nUsage: .*firewall/)
  })

  test('draws text as a picture', () => {
    const svg = toSvg('\x1b[1m\x1b[36m 1\x1b[39m\x1b[22m a < b   \x1b[32m✓\x1b[39m')
    assert.match(svg, /<text class="bold cyan" x="26.4" y="60.3" textLength="8.4">1<\/text>/)
    assert.match(svg, />a &lt; b<\/text>/)
    assert.match(svg, /<text class="green" x="110.4" [^>]*>✓<\/text>/)
    assert.doesNotMatch(svg, /\x1b/)
  })
})
