import type { ConsumeMessage } from 'amqplib'
import type { Dropped } from './message.ts'

/**
 * The one line about a message that is not obeyed: `dropped message <jti> from <sender>: <reason>`.
 * Of a message that cannot be opened, the id is what it claims and the sender is the broker's login.
 */
export function dropLine(message: ConsumeMessage, error: Dropped): string {
  const { messageId, userId } = message.properties
  const jti = error.claims?.jti ?? plain(messageId)
  const sender = error.claims?.iss ?? plain(userId)
  const why = error.why && ` (${plain(error.why, 200)})`
  return `dropped message ${jti} from ${sender}: ${error.reason}${why}`
}

function plain(text: unknown, max = 64): string {
  const clean = String(text ?? '').replace(/[^\x20-\x7e]+/g, ' ')
  return clean.length > max ? `${clean.slice(0, max - 3)}...` : clean || '-'
}
