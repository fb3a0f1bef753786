import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { installDocument } from './lib/document.ts'
import { startFail2ban } from './lib/fail2ban.ts'
import { createLab, PROJECT } from './lib/lab.ts'
import type { Machine } from './lib/machine.ts'
import { addAddresses } from './lib/network.ts'
import { missingPackages } from './lib/packages.ts'
import { addressOf, createPerimeter, type Perimeter } from './lib/perimeter.ts'
import { startSshd } from './lib/ssh.ts'
import { canAsk, canConnect, connect, listen, longestGap, probe } from './lib/traffic.ts'
import { waitUntil } from './lib/wait.ts'

const ATTACKER = addressOf('attacker1', 'outside')
const DOCUMENT_ACTION = 'document[name=web, port=80, protocol=tcp]'
const FAMILIES = ['inet4', 'inet6'] as const

/** From the attacker to the server, through the firewall. */
function path(family: 'inet4' | 'inet6', port = 80) {
  const source = addressOf('attacker1', 'outside', family)
  return { source, to: addressOf('web1', 'inside', family), port }
}

/** The namespaces that a machine lives in; a process in one of them is one that it left behind. */
function namespacesOf(machine: Machine): string[] {
  return ['net', 'mnt', 'uts', 'pid_for_children'].map((kind) =>
    readlinkSync(`/proc/${machine.pid}/ns/${kind}`),
  )
}

function anyoneIn(namespaces: readonly string[]): boolean {
  return readdirSync('/proc').some((id) => {
    try {
      return ['net', 'mnt', 'uts', 'pid'].some((kind) =>
        namespaces.includes(readlinkSync(`/proc/${id}/ns/${kind}`)),
      )
    } catch {
      return false
    }
  })
}

describe('lab', () => {
  let lab: Perimeter
  before(async () => {
    lab = await createPerimeter()
    await listen(lab.server, { tcp: [22, 80], udp: [53] })
  })
  after(() => lab.close())

  for (const family of FAMILIES) {
    test(`packets pass from attacker to server over ${family}`, async () => {
      assert.equal(await canConnect(lab.attacker, path(family)), true)
      assert.equal(await canAsk(lab.attacker, path(family, 53)), true)
      assert.equal(await connect(lab.attacker, path(family, 81)), 'refused')
    })
  }

  test('a drop rule on the firewall stops both families until it reboots', async () => {
    await lab.firewall.writeFile('/etc/kept', 'kept')
    await lab.firewall.run(['nft', '-f', '-'], {
      input: `table inet t { chain c { type filter hook forward priority 0; policy drop; }\n}\n`,
    })
    for (const family of FAMILIES) {
      assert.equal(await connect(lab.attacker, path(family)), 'silent')
      assert.equal(await canAsk(lab.attacker, path(family, 53)), false)
    }
    let early = 'not called'
    await lab.firewall.reboot({
      beforeNetwork: async () => {
        early = await lab.firewall.run(['ip', '-br', 'link', 'show', 'type', 'veth'])
      },
    })
    assert.equal(early, '')
    assert.equal(await lab.firewall.run(['nft', 'list', 'ruleset']), '')
    assert.equal(await lab.firewall.readFile('/etc/kept'), 'kept')
    for (const family of FAMILIES) {
      assert.equal(await canConnect(lab.attacker, path(family)), true)
    }
  })

  test('an attacker has many addresses', async () => {
    await addAddresses(lab.attacker, 'outside', ['203.0.113.200/24', '2001:db8:a::bad/64'])
    assert.equal(
      await canConnect(lab.attacker, { ...path('inet4'), source: '203.0.113.200' }),
      true,
    )
    assert.equal(
      await canConnect(lab.attacker, { ...path('inet6'), source: '2001:db8:a::bad' }),
      true,
    )
    await assert.rejects(
      canConnect(lab.attacker, { ...path('inet4'), source: '203.0.113.201' }),
      /EADDRNOTAVAIL/,
    )
  })

  test('a cut cable loses packets silently, and a probe sees how long', async () => {
    const tcp = await probe(lab.attacker, path('inet4'))
    const udp = await probe(lab.attacker, { ...path('inet6', 53), kind: 'udp' })
    await sleep(500)
    const since = performance.timeOrigin + performance.now()
    await lab.network.cut(lab.firewall, 'inside')
    await sleep(400)
    await lab.network.heal(lab.firewall, 'inside')
    await sleep(500)
    const until = performance.timeOrigin + performance.now()
    for (const result of [await tcp.stop(), await udp.stop()]) {
      assert.ok(longestGap(result, since - 400, since) < 200, 'packets pass before')
      const gap = longestGap(result, since, until)
      assert.ok(gap > 350 && gap < 800, `a gap of ${gap} ms`)
    }
  })

  test('commands find a clean environment and a machine of their own', async () => {
    assert.match(await lab.server.run(['env']), /^PATH=\S+\nLANG=C.UTF-8\nHOME=\/root\n$/)
    assert.equal(await lab.server.run(['hostname']), 'web1\n')
    assert.equal(await lab.server.run(['cat'], { input: 'given' }), 'given')
    const failing = await lab.server.exec(['sh', '-c', 'echo out; echo err >&2; exit 7'])
    assert.deepEqual(failing, { code: 7, stdout: 'out\n', stderr: 'err\n' })
    assert.equal((await lab.server.exec(['sleep', '9'], { timeout: 100 })).code, 124)
    await assert.rejects(lab.server.run(['false']), /web1: false: exit code 1/)
    await lab.server.run(['useradd', '-m', 'guest'])
    assert.equal(await lab.server.run(['id', '-un'], { user: 'guest' }), 'guest\n')
    assert.doesNotMatch(readFileSync('/etc/passwd', 'utf8'), /^guest:/m)
    assert.equal(existsSync('/home/guest'), false)
    await lab.server.run(['logger', '-t', 'test', 'first'])
    assert.match((await lab.server.journal()).at(-1) ?? '', /test: first$/)
    assert.notEqual((await lab.server.exec(['touch', join(PROJECT, 'x')])).code, 0)
  })

  test('a background process tells its lines and dies with its children', async () => {
    const lines: string[] = []
    const script = 'sleep 99 & echo ready; read word; echo "$word"; wait'
    const options = { onLine: (line: string) => void lines.push(line) }
    const background = await lab.server.spawn(['sh', '-c', script], options)
    background.stdin.write('hello\n')
    await waitUntil('both lines', () => lines.length === 2)
    assert.deepEqual(lines, ['ready', 'hello'])
    await background.kill('SIGKILL')
    assert.equal(await background.ended(), -1)
    await waitUntil('the end of its child', () => lab.server.signal('sleep', 'SIGCONT') === 0)
  })
})

describe('lab services', () => {
  let lab: Perimeter
  before(async () => {
    lab = await createPerimeter()
    await listen(lab.server, { tcp: [22, 80] })
  })
  after(() => lab.close())

  test('fail2ban bans after a line in a log, and remembers', async () => {
    const action = 'nftables-multiport[name=sshd, port=ssh]'
    const fail2ban = await startFail2ban(lab.server, [{ name: 'sshd', action, maxretry: 2 }])
    await fail2ban.failLogin(ATTACKER, { times: 2 })
    await fail2ban.logged(`[sshd] Ban ${ATTACKER}`)
    await waitUntil('the ban', async () => !(await canConnect(lab.attacker, path('inet4', 22))))
    assert.equal(await connect(lab.attacker, path('inet4', 22)), 'refused')
    assert.equal(await canConnect(lab.attacker, path('inet4', 80)), true)
    assert.equal(await canConnect(lab.attacker, path('inet6', 22)), true)
    await fail2ban.stop()
    assert.equal(await canConnect(lab.attacker, path('inet4', 22)), true)
    await fail2ban.start()
    await fail2ban.logged(`[sshd] Restore Ban ${ATTACKER}`)
    fail2ban.kill()
    await fail2ban.start()
    await fail2ban.stop()
  })

  for (const shared of [false, true]) {
    test(`the document blocks packets${shared ? ' over a shared connection' : ''}`, async () => {
      const fresh = await createPerimeter()
      try {
        await listen(fresh.server, { tcp: [22] })
        const sshd = await startSshd(fresh.firewall)
        const options = { shared, repaired: shared }
        const document = await installDocument(fresh.server, fresh.firewall, sshd, options)
        await document.ban('fail2ban-sshd', ATTACKER)
        assert.equal(await connect(fresh.attacker, path('inet4', 22)), 'silent')
        await document.ban('fail2ban-sshd', '203.0.113.7')
        const jumps = await fresh.firewall.sh('iptables -S FORWARD | grep -c fail2ban-sshd')
        assert.equal(jumps, shared ? '1\n' : '2\n')
        sshd.freeze()
        const hanging = await fresh.server.exec(['ssh', 'edge1', 'true'], { timeout: 300 })
        assert.equal(hanging.code, 124)
        sshd.thaw()
        await document.unban('fail2ban-sshd', ATTACKER)
        assert.equal(await canConnect(fresh.attacker, path('inet4', 22)), true)
        await sshd.stop()
        await assert.rejects(document.unban('fail2ban-sshd', ATTACKER), /exit code 255/)
      } finally {
        await fresh.close()
      }
    })
  }

  test('fail2ban bans with the document', async () => {
    const sshd = await startSshd(lab.firewall)
    await installDocument(lab.server, lab.firewall, sshd)
    const fail2ban = await startFail2ban(lab.server, [{ name: 'web', action: DOCUMENT_ACTION }])
    await fail2ban.failLogin(ATTACKER)
    await waitUntil('the ban', async () => !(await canConnect(lab.attacker, path('inet4'))))
    await fail2ban.client('set', 'web', 'unbanip', ATTACKER)
    assert.equal(await canConnect(lab.attacker, path('inet4')), true)
  })
})

describe('nothing stays on the host', () => {
  test('after close()', async () => {
    const disk = mkdtempSync(join(tmpdir(), 'lab-test-'))
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    const lab = await createLab({ disk })
    const machine = await lab.machine('alone', { nics: { wire: ['192.0.2.1/24'] } })
    await machine.spawn(['setsid', 'sleep', '99'])
    await machine.writeFile('/var/lib/some/file', 'text')
    const namespaces = namespacesOf(machine)
    assert.equal(anyoneIn(namespaces), true)
    assert.equal(readFileSync('/proc/self/mountinfo', 'utf8'), mounts)
    await lab.close()
    assert.equal(anyoneIn(namespaces), false)
    assert.deepEqual(readdirSync(disk), [])
    rmSync(disk, { recursive: true })
  })

  for (const signal of ['SIGINT', 'SIGKILL'] as const) {
    test(`after ${signal}`, async () => {
      const disk = mkdtempSync(join(tmpdir(), 'lab-test-'))
      const program = `
        const { createLab } = await import('${PROJECT}/test/lib/lab.ts')
        const lab = await createLab({ disk: '${disk}' })
        const machine = await lab.machine('alone', { nics: { wire: ['192.0.2.1/24'] } })
        console.log(machine.pid)
        setInterval(() => {}, 1000)`
      const args = ['--import', 'tsx', '--input-type=module', '-e', program]
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
      const [text] = await once(child.stdout, 'data')
      const namespaces = namespacesOf({ pid: Number(text) } as Machine)
      child.kill(signal)
      await waitUntil('the end of all processes', () => !anyoneIn(namespaces))
      await waitUntil('the end of all files', () => readdirSync(disk).length === 0)
      rmSync(disk, { recursive: true })
    })
  }

  test('a lab names the packages that it lacks', () => {
    assert.deepEqual(missingPackages(), [])
    assert.deepEqual(missingPackages({ 'no-such-program': 'no-such' }), ['no-such'])
  })
})
