import { existsSync } from 'node:fs'
import { parseDocument } from 'yaml'
import { change, say } from './changes.ts'
import { configText } from './config-file.ts'
import { deliveryItems, planDelivery } from './delivery.ts'
import { DELIVER } from './delivery-units.ts'
import type { Settings } from './need-root.ts'
import type { Place } from './place.ts'

/**
 * Lets the f2b-deliver that systemd runs here do what config.yaml asks of it now: read the secrets
 * of another target, write its list. Where nothing is delivered, or by cron as root, it changes
 * nothing.
 */
export async function realignDelivery(place: Place): Promise<void> {
  if (place.prefix || place.dryRun || !existsSync(`/etc/systemd/system/${DELIVER}`)) return
  const settings = (parseDocument(configText(place) ?? '').toJS() ?? {}) as Settings
  const delivery = await planDelivery(place, settings, { systemd: true, isNew: false })
  const manner = { ...place, uninstall: false, purge: false }
  const changed = await change(deliveryItems(manner, delivery), manner)
  if (changed > 0 && delivery.root !== undefined)
    say(`note: f2b-deliver runs as root: ${delivery.root}`)
}
