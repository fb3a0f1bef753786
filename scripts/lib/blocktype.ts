import { EXIT, Failure } from './failure.ts'
import { quote } from './lease.ts'

const BLOCKS = /^$|DROP|drop|REJECT|reject|DENY|deny|TARPIT|blackhole|prohibit|unreachable/
const PASSES = /^(|RETURN|return)$/

/**
 * Refuses the parameters of an action that turn its meaning round, as Fail2Ban's jail pass2allow-ftp
 * has them. The action lines do the same with the same words (action.d/perimeter-blocks.conf).
 *
 * @param properties `blocktype` and `returntype` of the action, as Fail2Ban shows them
 * @throws Failure 65
 */
export function checkBlocktype(properties: Readonly<Record<string, string>>): void {
  const { blocktype = '', returntype = '' } = properties
  if (BLOCKS.test(blocktype) && PASSES.test(returntype)) return
  const how = `blocktype=${quote(blocktype)} and returntype=${quote(returntype)}`
  throw new Failure(EXIT.input, `Cannot ban with ${how}: it would block whom the jail lets in`)
}
