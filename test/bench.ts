// Prints, side by side in one run, this project, the document's scripts and the physical floor.
//
//   npm run bench [-- --node /path/to/another/node]...
//   KILLS=1000 npm run bench -- kills
//   npm run bench -- delivery|fortigate|net2ban|packets|kills|stale|turns|owners
import { parseArgs } from 'node:util'
import { benchBan } from './bench/ban.ts'
import { benchBulk } from './bench/bulk.ts'
import { benchDelivery } from './bench/delivery.ts'
import { benchFortigate } from './bench/fortigate.ts'
import { killFirewall } from './bench/kills.ts'
import { benchNet2ban } from './bench/net2ban.ts'
import { benchOwners } from './bench/owners.ts'
import { benchPackets } from './bench/packets.ts'
import { staleBans } from './bench/stale.ts'
import { printRows } from './bench/table.ts'
import { benchTurns } from './bench/turns.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { node: { type: 'string', multiple: true } },
})

if (positionals[0] === 'fortigate') await benchFortigate()
else if (positionals[0] === 'delivery') printRows(await benchDelivery())
else if (positionals[0] === 'stale') console.log(await staleBans(5, 10))
else if (positionals[0] === 'net2ban') await benchNet2ban()
else if (positionals[0] === 'packets') await benchForwarding()
else if (positionals[0] === 'kills') await killAll()
else if (positionals[0] === 'owners') printRows(await benchOwners())
else if (positionals[0] === 'turns') await benchAllTurns()
else await benchFirewall()

async function benchFirewall(): Promise<void> {
  for (const node of [process.execPath, ...(values.node ?? [])]) printRows(await benchBan(node))
  for (const backend of ['nftables', 'ipset'] as const) printRows(await benchBulk(backend))
}

async function benchForwarding(): Promise<void> {
  for (const backend of ['nftables', 'ipset', 'iptables'] as const) {
    printRows(await benchPackets(backend))
  }
}

async function killAll(): Promise<void> {
  for (const backend of ['nftables', 'ipset', 'iptables'] as const) {
    process.stdout.write(`${await killFirewall(backend, Number(process.env.KILLS ?? 1000))}\n`)
  }
}

async function benchAllTurns(): Promise<void> {
  for (const backend of ['nftables', 'ipset', 'iptables'] as const) {
    printRows(await benchTurns(backend))
  }
}
