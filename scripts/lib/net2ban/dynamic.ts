import type { Address } from '../address.ts'
import type { Tags } from './tags.ts'

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
