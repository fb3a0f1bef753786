import { readFileSync } from 'node:fs'
import { build } from 'esbuild'
import type { Booted } from './booted.ts'

// What a booted server of the README is set up against: programs around our simulators, each one
// file, which run on a booted machine.

/** The Sophos firewall at 198.51.100.1. */
const SOPHOS = `import { SophosSimulator } from './simulators/sophosxg.ts'
await new SophosSimulator({ pass: process.argv[2] }).listen(4444, '198.51.100.1')`

/** Those with a JSON API at 198.51.100.1, one at a time. */
const APPLIANCES = {
  mikrotik: `import { MikrotikSimulator } from './simulators/mikrotik.ts'
await new MikrotikSimulator().listen(443, '198.51.100.1')`,
  opnsense: `import { OpnsenseSimulator } from './simulators/opnsense.ts'
await new OpnsenseSimulator().listen(443, '198.51.100.1')`,
}

/** Threat Jammer; it writes where it is as lines of section \`threatjammer\`. */
const THREAT_JAMMER = `import { writeFileSync } from 'node:fs'
import { startThreatJammer } from './simulators/threatjammer.ts'
const { reportUrl, apiUrl } = await startThreatJammer(process.argv[2])
writeFileSync('/run/threatjammer', '  report_url: ' + reportUrl + '\\n  api_url: ' + apiUrl + '\\n')`

/** A FortiGate that has been told what f2b-setup printed: three bad logins, or its feed and the page. */
const FORTIGATE = `import { FortiGate, SSLVPN_FAILED } from './simulators/fortigate.ts'
const [server, user, pass, secret, remip] = process.argv.slice(2)
const device = new FortiGate({ server, user, pass, secret })
if (remip) {
  for (let i = 0; i < 3; i++) console.log(await device.post(SSLVPN_FAILED.v7({ remip }), 'fields'))
} else {
  await device.pull()
  for (const entry of device.feed.entries) console.log(entry)
}`

export async function bringSophos(machine: Booted, pass: string): Promise<void> {
  await certify(machine)
  await bring(machine, 'sophos', SOPHOS)
  await serve(machine, 'sophos', 4444, pass)
}

/** @returns what ends it */
export async function bringAppliance(
  machine: Booted,
  name: keyof typeof APPLIANCES,
): Promise<() => Promise<unknown>> {
  await certify(machine)
  await bring(machine, name, APPLIANCES[name])
  await serve(machine, name, 443)
  return () => machine.sh(`systemctl stop ${name}`)
}

/** Starts a simulator, and waits until it can be reached. */
async function serve(machine: Booted, name: string, port: number, word = ''): Promise<void> {
  await machine.sh(`systemd-run -q --unit=${name} node /root/simulators/${name}.mjs ${word}
until ss -Hltn | grep -q ':${port} '; do sleep 0.1; done`)
}

/** What a simulator of an appliance shows. */
async function certify(machine: Booted): Promise<void> {
  for (const name of ['box.key', 'box.pem']) {
    const input = readFileSync(`test/fixtures/sophosxg/${name}`, 'utf8')
    await machine.sh(`mkdir -p fixtures/sophosxg; cat >fixtures/sophosxg/${name}`, { input })
  }
}

/** @returns the lines of the section that lead to it */
export async function bringThreatJammer(machine: Booted, key: string): Promise<string> {
  await bring(machine, 'threatjammer', THREAT_JAMMER)
  await machine.sh(
    `systemd-run -q --unit=threatjammer node /root/simulators/threatjammer.mjs ${key}`,
  )
  return await machine.sh(
    'until [ -s /run/threatjammer ]; do sleep 0.1; done; cat /run/threatjammer',
  )
}

/** A FortiGate that can do what was printed, and trusts this certificate. */
export async function bringFortigate(machine: Booted, printed: string, cert: string) {
  const told = (word: RegExp): string => word.exec(printed)?.[1] ?? ''
  const server = told(/set resource "(.*)\/blocked-ips"/)
  const login = [told(/set username "(.*)"/), told(/set password "(.*)"/)]
  const words = [server, ...login, told(/set key "X-Webhook-Token"\n +set value "(.*)"/)]
  const line = `node simulators/fortigate.mjs ${words.map((word) => `'${word}'`).join(' ')}`
  const env = { NODE_EXTRA_CA_CERTS: '/root/device.pem' }
  await machine.sh('cat >device.pem', { input: cert })
  await bring(machine, 'fortigate', FORTIGATE)
  return {
    /** Three logins from an address fail. @returns the answers to its posts */
    fail: (address: string) => machine.sh(`${line} ${address}`, { env }),
    feed: () => machine.sh(line, { env }),
  }
}

async function bring(machine: Booted, name: string, contents: string): Promise<void> {
  const banner =
    "import{createRequire}from'node:module';const require=createRequire(import.meta.url);"
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: 'test', loader: 'ts' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    banner: { js: banner },
    write: false,
    logLevel: 'warning',
  })
  const input = outputFiles[0]?.text ?? ''
  await machine.sh(`mkdir -p simulators; cat >simulators/${name}.mjs`, { input })
}
