import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseAddress } from '../address.ts'
import { alive, type Lease, later, now } from '../lease.ts'
import { type Difference, type Ledger, type Line, RELEASED, withLedger } from '../ledger.ts'
import { type Call, nameOf } from './call.ts'
import { endOf } from './forwarded.ts'

/** What this owner has sent through one action file: no node could be asked for it. */
export class Sent {
  readonly #folder: string
  readonly #file: string

  /** @param stateDir `state_dir` @param file the action file */
  constructor(stateDir: string, file: string) {
    this.#folder = join(stateDir, 'net2banctl')
    this.#file = file
  }

  /** The leases in force, of one jail or of all. @throws Failure 75 */
  leases(owner: string, jail?: string): Promise<Lease[]> {
    return this.#locked((ledger) => {
      const living = [...ledger.living(now())]
      const own = living.filter((l) => l.owner === owner && (jail === undefined || l.jail === jail))
      return own.map((line) => ({ ...line, address: parseAddress(line.address) }))
    })
  }

  /** What a sync would change. @throws Failure 75 */
  difference(
    owner: string,
    jail: string | undefined,
    leases: readonly Lease[],
  ): Promise<Difference> {
    const wanted = leases.map((lease): Line => ({ ...lease, address: lease.address.text, owner }))
    return this.#locked((ledger) => ledger.diff(owner, jail, wanted, now()))
  }

  /** Remembers what has been sent. @throws Failure 75 */
  async record(owner: string, calls: readonly Call[], changes: readonly Line[] = []) {
    await this.#locked((ledger) => {
      for (const call of calls) note(ledger, owner, call)
      for (const line of changes) ledger.put(line)
      ledger.commit()
      ledger.tidy(now())
    })
  }

  async #locked<T>(work: (ledger: Ledger) => T): Promise<T> {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
    return await withLedger(join(this.#folder, `${this.#file}.leases`), work)
  }
}

function note(ledger: Ledger, owner: string, { action, params }: Call): void {
  const jail = nameOf(params)
  if (params.ip === undefined) {
    if (action !== 'actionflush' && action !== 'actionstop') return
    for (const line of [...ledger.living(now())]) {
      if (line.owner === owner && line.jail === jail) ledger.put({ ...line, expires: RELEASED })
    }
    return
  }
  const address = parseAddress(params.ip).text
  const known = ledger.held(address).find((row) => row.jail === jail && row.owner === owner)
  const end = endOf(params, now())
  const held = known && alive(known.expires, now()) ? later(known.expires, end) : end
  const expires = action === 'actionunban' ? RELEASED : held
  if (known?.expires !== expires) ledger.put({ address, jail, expires, owner })
}
