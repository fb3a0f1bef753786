import { setTimeout as sleep } from 'node:timers/promises'
import type { Address } from '../address.ts'
import { type Call, changeOne } from '../target.ts'
import { isIt } from './jails.ts'
import { type Site, type Trouble, troubleOf, within } from './look.ts'

/** How an address is taken from a target. */
export interface Freeing {
  /** Jails that may have it without the target saying so: who lists only what a service was told. */
  jails: string[]
  /** The jails that Fail2Ban has banned it in since: those stay. */
  again: string[]
  /** Seconds in which f2b-deliver may tell the target what it has been told. */
  wait: number
  /** Seconds for the target. */
  seconds: number
}

export async function freeAt(
  site: Site,
  call: Call,
  address: Address,
  { jails, again, wait, seconds }: Freeing,
): Promise<Trouble | undefined> {
  await delivered(site, address, wait)
  const { target, remote } = site
  const free = async (): Promise<void> => {
    const left = (await target.list(call)).filter((lease) => isIt(lease, address))
    const all = new Set([...left.map(({ jail }) => jail), ...(remote ? [] : jails)])
    const gone = [...all].filter((jail) => !again.includes(jail))
    for (const jail of gone) await changeOne(target, call, { verb: 'unban', address, jail })
  }
  try {
    await within(seconds, 'no answer in time', free())
    return undefined
  } catch (error) {
    return troubleOf(error)
  }
}

/** Waits until f2b-deliver has told the target, or does not get to it. */
async function delivered({ books, target }: Site, address: Address, wait: number): Promise<void> {
  for (const end = Date.now() + wait * 1000; Date.now() < end; await sleep(100)) {
    if (books.anew().about(address, target.name).length === 0) return
  }
}
