import type { Address } from '../address.ts'

/** The tags of one ban, and their values. */
export type Tags = ReadonlyMap<string, string>

/** Fail2Ban's dynamic tags of one ban; what a node cannot know is empty. */
export function dynamicTags(address: Address, params: Readonly<Record<string, string>>): Tags {
  return new Map([
    ['matches', ''],
    ['ipmatches', ''],
    ['ipjailmatches', ''],
    ['ip-host', ''],
    ['ip-rev', reversed(address)],
    ['failures', '0'],
    ['ipfailures', '0'],
    ['ipjailfailures', '0'],
    ['bancount', '1'],
    ['restored', '0'],
    ['bantime', '-1'],
    ...Object.entries(params),
    ['ip', address.text],
    ['fid', address.text],
    ['family', address.family],
  ])
}

/** As in a DNS name, with the dot behind, as Fail2Ban has it. */
function reversed({ text, family }: Address): string {
  const [host = ''] = text.split('/')
  if (family === 'inet4') return `${host.split('.').reverse().join('.')}.`
  const [left = '', right] = host.split('::')
  const head = left ? left.split(':') : []
  const tail = right ? right.split(':') : []
  const zeros = Array<string>(8 - head.length - tail.length).fill('0')
  const digits = [...head, ...zeros, ...tail].map((group) => group.padStart(4, '0')).join('')
  return `${[...digits].reverse().join('.')}.`
}

/**
 * Puts the values of a ban into a command, in one go, so that no value can name another tag: as
 * Fail2Ban's `replaceDynamicTags`, but for its quoting, since checked values hold nothing to quote.
 */
export function fillBan(command: string, values: Tags): string {
  const text = command.replace(/<([^ <>]+)>/g, (tag, name: string) => values.get(name) ?? tag)
  return text.replace(/<F-[A-Z0-9_-]+>/g, '') // What a filter captured: there is no filter here.
}
