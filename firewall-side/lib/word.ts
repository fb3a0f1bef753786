import { parseBanned } from '../../scripts/lib/address.ts'
import { main, type Options, textOption } from '../../scripts/lib/command.ts'
import { EXPIRY_OPTIONS, readExpiry } from '../../scripts/lib/expires.ts'
import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { checkOwner } from '../../scripts/lib/lease.ts'
import { print } from '../../scripts/lib/print.ts'
import { openPerimeter } from './open.ts'
import { parseCommand } from './request.ts'

/** Leases that root makes on the firewall itself belong to nobody's server. */
export const LOCAL_OWNER = 'firewall'

/** Fail2Ban's own words for when a ban ends, in place of `[expires]`. */
const EXPIRY_HELP = `
  --bantime SECONDS how long it lasts; -1 until unbanip
  --time EPOCH      when it began; default now`

/**
 * Runs one of the chain scripts by hand, as root on the firewall: the same words that come over SSH,
 * with the owner `firewall` unless `--owner` names another.
 */
export async function runWord(word: string, help: string): Promise<void> {
  await main({
    name: word,
    help: `${help.trim()}

Options
  --owner OWNER     whose lease it is; default ${LOCAL_OWNER}${word === 'banip' ? EXPIRY_HELP : ''}`,
    options: { owner: { type: 'string' }, ...(word === 'banip' && EXPIRY_OPTIONS) } as Options,
    run: async (positionals, values) => {
      const timed = values.bantime !== undefined || values.time !== undefined
      const expires = timed ? [String(readExpiry(values))] : []
      const request = parseCommand([word, ...widened(word, positionals), ...expires])
      const owner = checkOwner(textOption(values, 'owner') ?? LOCAL_OWNER)
      const { perimeter } = await openPerimeter({ owner, peer: undefined })
      const [answer] = await perimeter.perform([request])
      if (!answer) return
      if (answer.code !== EXIT.done) throw new Failure(answer.code, answer.error)
      for (const line of answer.lines) print(`${line}\n`)
    },
  })
}

/** An action line says how wide a ban is behind the address. */
function widened(verb: string, words: string[]): string[] {
  if (verb !== 'banip' && verb !== 'unbanip') return words
  return words.map((word, i) => (i === 1 ? parseBanned(word).text : word))
}
